"""Joins the labels of windows that overlap, so that no word at a seam is lost or found twice.

Both windows hear the words near the seam. Where a window ends, or begins, within a word, its labels there are wrong,
while nearer to the middle of the overlap both find the same ones. So the windows are joined within the longest run of
labels that both found at about the same time. If they found none, the later window takes over at the seam.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from typing import Generic, NamedTuple, TypeVar

from nibble.conventions import SAMPLE_RATE_HZ
from nibble.inference.windows import Window

Label = TypeVar("Label", int, str)

_SAME_S = 0.25  # how far apart two windows may hear the same label: an encoder's frames, and less context, shift it


class Heard(NamedTuple, Generic[Label]):
    """Labels, and the start of each in seconds, in order."""

    labels: list[Label]
    starts_s: list[float]


class Passages(Generic[Label]):
    """Collects the labels of a recording, window by window.

    Attributes:
        found: the passages between pauses; times count from the start of the recording.
    """

    def __init__(self) -> None:
        self.found: list[Heard[Label]] = []

    def add(self, window: Window, heard: Heard[Label]) -> None:
        """The labels of the next window; their times count from its start."""
        end_s = window.start_s + len(window.samples) / SAMPLE_RATE_HZ
        # A model that streams hears silence after the end.
        starts_s = [min(window.start_s + start_s, end_s) for start_s in heard.starts_s]
        new = Heard(list(heard.labels), starts_s)
        if window.seam_s is None or not self.found:
            self.found.append(new)
        else:
            _join(self.found[-1], new, window.start_s, window.seam_s)


def _join(passage: Heard[Label], new: Heard[Label], start_s: float, seam_s: float) -> None:
    """Append to `passage` the labels of a window that begins at `start_s` and takes over at about `seam_s`."""
    first = bisect_left(passage.starts_s, start_s - _SAME_S)
    last = bisect_right(new.starts_s, passage.starts_s[-1] + _SAME_S) if passage.labels else 0
    both = _common(
        list(zip(passage.labels[first:], passage.starts_s[first:], strict=True)),
        list(zip(new.labels[:last], new.starts_s[:last], strict=True)),
        seam_s,
    )
    if both is None:
        kept, dropped = bisect_left(passage.starts_s, seam_s), bisect_left(new.starts_s, seam_s)
    else:
        kept, dropped = first + both[0] + 1, both[1] + 1
    passage.labels[kept:] = new.labels[dropped:]
    passage.starts_s[kept:] = new.starts_s[dropped:]


def _common(
    before: Sequence[tuple[Label, float]], after: Sequence[tuple[Label, float]], seam_s: float
) -> tuple[int, int] | None:
    """Where to join two sequences of (label, start): (index in `before`, index in `after`) of one label in both.

    It is in the longest run that both have at about the same times, as near as possible to the seam.
    """
    best: tuple[int, float] = (0, 0.0)
    found = None
    lengths: dict[tuple[int, int], int] = {}
    for i, (label, start_s) in enumerate(before):
        for j, (other, other_s) in enumerate(after):
            if label != other or abs(start_s - other_s) > _SAME_S:
                continue
            length = lengths[i, j] = lengths.get((i - 1, j - 1), 0) + 1
            run = [(i - back, j - back) for back in range(length)]
            distances_s = [abs(before[here][1] - seam_s) for here, _ in run]
            apart_s = sum(abs(before[here][1] - after[there][1]) for here, there in run) / length
            closeness = -(min(distances_s) + apart_s)  # of a word that is said again and again, not the next one
            if (length, closeness) > best or found is None:
                best, found = (length, closeness), run[distances_s.index(min(distances_s))]
    return found
