"""Windows that overlap: at seams no label is lost or doubled, whatever either window makes of the word at its end."""

import numpy as np
import pytest

from nibble.conventions import SAMPLE_RATE_HZ
from nibble.inference.seams import Heard, Passages
from nibble.inference.windows import Window


def window(start_s: float, end_s: float, seam_s: float | None = None) -> Window:
    return Window(start_s, np.zeros(round((end_s - start_s) * SAMPLE_RATE_HZ), np.float32), seam_s)


def joined(first: str, first_s: list[float], second: str, second_s: list[float]) -> tuple[str, list[float]]:
    """Words of a window of ten seconds, and of one from 8.5 on that takes over at 9.25; times of the recording."""
    passages: Passages[str] = Passages()
    passages.add(window(0.0, 10.0), Heard(first.split(), first_s))
    passages.add(window(8.5, 15.0, seam_s=9.25), Heard(second.split(), [start_s - 8.5 for start_s in second_s]))
    (passage,) = passages.found
    assert passage.starts_s == sorted(passage.starts_s)
    return " ".join(passage.labels), passage.starts_s


@pytest.mark.parametrize(
    ("first", "first_s", "second", "second_s", "expected"),
    [
        # The word at the end of each window is cut, and heard as another one.
        ("a b c d off", [1, 8.7, 9.0, 9.4, 9.8], "if b c d e f", [8.5, 8.74, 9.04, 9.4, 9.8, 10.2], "a b c d e f"),
        # A word twice: the run is longest where both are the same.
        ("a go go go", [1, 8.9, 9.15, 9.4], "go go go b", [8.9, 9.15, 9.4, 9.9], "a go go go b"),
        # The second window misses the first of them.
        ("a go go b", [1, 8.9, 9.1, 9.5], "go b c", [9.12, 9.5, 10.1], "a go go b c"),
        # What is far apart in time is not the same word.
        ("a b", [1, 8.9], "b c", [9.6, 9.9], "a b b c"),
        # Nothing in common: the second takes over at the seam.
        ("a b x", [1, 8.9, 9.5], "y c d", [8.8, 9.4, 9.9], "a b c d"),
        ("a", [1], "b c", [9.3, 9.9], "a b c"),
        ("", [], "b c", [9.3, 9.9], "b c"),
        ("a b", [1, 9.1], "", [], "a b"),
    ],
)
def test_two_windows(first: str, first_s: list[float], second: str, second_s: list[float], expected: str) -> None:
    assert joined(first, first_s, second, second_s)[0] == expected


def test_times_are_of_the_recording() -> None:
    text, starts_s = joined("a b c", [1.0, 8.8, 9.2], "b c d", [8.8, 9.2, 11.0])
    assert text == "a b c d"
    assert starts_s == pytest.approx([1.0, 8.8, 9.2, 11.0])


def test_after_a_pause_nothing_is_compared() -> None:
    passages: Passages[int] = Passages()
    passages.add(window(0.0, 5.0), Heard([1, 2], [1.0, 4.9]))
    passages.add(window(5.0, 9.0), Heard([2, 3], [0.1, 4.6]))  # the last one begins beyond the window
    assert [passage.labels for passage in passages.found] == [[1, 2], [2, 3]]
    assert passages.found[1].starts_s == pytest.approx([5.1, 9.0])
