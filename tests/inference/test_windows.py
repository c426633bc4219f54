"""Windows of long recordings: all speech is in one of them, at its place; they overlap only where nobody pauses."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from loudness import loud

from nibble.conventions import SAMPLE_RATE_HZ
from nibble.data.samples import Samples
from nibble.inference.voice_activity import FRAME_SAMPLES, speech_probability
from nibble.inference.windows import Window, windows


def recording(spoken_s: list[float], pauses_s: list[float]) -> Samples:
    """Tones of these lengths, each after a pause, over a faint background."""
    pieces = []
    for lasts_s, pause_s in zip(spoken_s, pauses_s, strict=True):
        tone = 0.3 * np.sin(0.2 * np.arange(int(lasts_s * SAMPLE_RATE_HZ)))
        pieces += [np.zeros(int(pause_s * SAMPLE_RATE_HZ)), tone]
    samples = np.concatenate(pieces)
    return (samples + 1e-3 * np.random.default_rng(0).standard_normal(len(samples))).astype(np.float32)


def in_pieces(samples: Samples, size: int) -> list[Samples]:
    return [samples[start : start + size] for start in range(0, len(samples), size)]


def check(samples: Samples, found: list[Window], longest_s: float) -> None:
    """Windows are stretches of the recording, in order, short enough, and hold all that is loud.

    They are apart but where one takes over from the one before, at a seam that both hear.
    """
    covered, end = np.zeros(len(samples), bool), 0
    for start_s, part, seam_s in found:
        start = round(start_s * SAMPLE_RATE_HZ)
        if seam_s is None:
            assert start >= end
        else:
            assert start <= round(seam_s * SAMPLE_RATE_HZ) <= end <= start + longest_s / 4 * SAMPLE_RATE_HZ
        end = start + len(part)
        assert 0 < len(part) <= longest_s * SAMPLE_RATE_HZ
        np.testing.assert_array_equal(part, samples[start:end])
        covered[start:end] = True
    assert covered[np.abs(samples) > 0.05].all()


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0.1, 2.5), st.sampled_from([0.2, 0.6, 3.0, 8.0])), min_size=1, max_size=8),
    st.sampled_from([1_000, 16_000, 10**6]),
)
def test_all_speech_is_in_a_window(said: list[tuple[float, float]], size: int) -> None:
    samples = recording(*map(list, zip(*said, strict=True)))
    found = list(windows(in_pieces(samples, size), 5.0, loud))
    check(samples, found, 5.0)
    again = list(windows([samples], 5.0, loud))  # whatever the pieces are
    assert [window.start_s for window in again] == [window.start_s for window in found]


def test_a_window_ends_in_a_pause() -> None:
    """Words of 0.9 s with 0.6 s between them, windows of at most 5 s: each word is whole in one window."""
    samples = recording([0.9] * 20, [0.6] * 20)
    found = list(windows([samples], 5.0, loud))
    check(samples, found, 5.0)
    for before, after in pairwise(found):
        assert after.seam_s is None
        assert np.abs(before.samples[-200:]).max() < 0.05
        assert np.abs(after.samples[:200]).max() < 0.05


@pytest.mark.parametrize("longest_s", [3.0, 10.0, 30.0])
def test_without_a_pause_windows_overlap_where_it_is_quietest(longest_s: float) -> None:
    """Words of 0.9 s with 0.2 s between them: seams lie between words, and little is heard twice."""
    samples = recording([0.9] * 100, [0.2] * 100)
    found = list(windows(in_pieces(samples, 16_000), longest_s, loud))
    check(samples, found, longest_s)
    for window in found[1:]:
        assert window.seam_s is not None
        seam = round(window.seam_s * SAMPLE_RATE_HZ)
        assert np.abs(samples[seam : seam + 200]).max() < 0.05
    assert sum(len(window.samples) for window in found) < (1.5 if longest_s < 6 else 1.25) * len(samples)


def test_a_recording_that_fits_is_left_as_it_is() -> None:
    silence = np.zeros(4 * SAMPLE_RATE_HZ, np.float32)
    ((start_s, samples, seam_s),) = windows(in_pieces(silence, 1_000), 5.0, loud)
    assert (start_s, seam_s) == (0, None)
    assert np.array_equal(samples, silence)


def test_lasting_silence_is_in_no_window() -> None:
    assert list(windows([np.zeros(60 * SAMPLE_RATE_HZ, np.float32)], 5.0, loud)) == []
    samples = recording([1.0, 1.0], [30.0, 60.0])
    found = list(windows([samples], 5.0, loud))
    check(samples, found, 5.0)
    assert sum(len(window.samples) for window in found) < 4 * SAMPLE_RATE_HZ


def test_no_more_is_held_than_a_window_needs() -> None:
    taken = 0

    def endless():
        nonlocal taken
        while True:
            taken += 1
            yield recording([0.8], [0.2])

    found = windows(endless(), 5.0, loud)
    for _ in range(20):
        window = next(found)
        assert taken <= window.start_s + 5.0 + 2


def test_no_speech_where_there_is_none() -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        random = np.random.default_rng(0)
        for level in (0.0, 0.001, 0.1):
            noise = (level * random.standard_normal(3 * SAMPLE_RATE_HZ)).astype(np.float32)
            probability = speech_probability(noise)
            assert len(probability) == -(-len(noise) // FRAME_SAMPLES)
            assert probability.max() < 0.2
        assert torch.get_num_threads() == 2  # the package sets it to 1
    finally:
        torch.set_num_threads(threads)


def test_speech_where_there_is_some(shared_data: Path) -> None:
    file = next((shared_data / "digits" / "LibriSpeech" / "dev-digits").rglob("*.flac"))
    samples, _ = soundfile.read(file, dtype="float32")
    quiet = np.concatenate((np.zeros(2 * SAMPLE_RATE_HZ, np.float32), 0.01 * samples))
    assert np.quantile(speech_probability(samples), 0.6) > 0.5
    assert speech_probability(quiet)[:50].max() < 0.2
    assert speech_probability(quiet)[62:].max() > 0.5
