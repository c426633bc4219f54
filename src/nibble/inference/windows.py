"""Cuts a long recording into windows that a recogniser can take: at pauses, or so that they overlap.

Attention costs the square of a recording's length, and no model knows longer speech than it was trained on. So a
window is at most as long as a training utterance may be. It ends at the first clear pause. Where nobody pauses, it and
the next window overlap, about the quietest place in its last third: a word there is whole in one of them, and
`nibble.inference.seams` joins what both hear. Silence that lasts is in no window.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nibble.conventions import SAMPLE_RATE_HZ
from nibble.data.samples import Samples
from nibble.inference.voice_activity import FRAME_SAMPLES, speech_probability

Detector = Callable[[Samples], NDArray[np.float32]]

_SPEECH = 0.2  # probability from which a frame may be speech; Silero's own bound, 0.5, drops quiet beginnings of words
_MARGIN = 6  # frames kept before the first and after the last speech of a window: 0.2 s
_PAUSE = 12  # frames without speech at which a window may end early: 0.4 s, as between sentences
_EARLIEST = 10  # a window ends there if it has a tenth of the longest
_SMOOTHED = 7  # frames, 0.2 s: closures of stop consonants are shorter, pauses between words longer
_SPEECH_DB = 20.0  # how much louder certain speech counts than no speech, where a window may end
_OVERLAP = 46  # frames that two windows share where nobody pauses, 1.5 s: longer than nearly every word
_LEAST_OVERLAPS = 4  # a window is at least so many times as long as what it shares
_FLOOR = 1e-10  # power below which nothing is quieter: -100 dB


class Window(NamedTuple):
    """A part of a recording."""

    start_s: float  # from the start of the recording
    samples: Samples  # (samples,) at 16 kHz
    seam_s: float | None = None  # from here on it takes over from the window before, which ends later; None: a pause


def windows(pieces: Iterable[Samples], longest_s: float, detect: Detector = speech_probability) -> Iterator[Window]:
    """Windows of at most `longest_s` of a recording that comes in pieces (samples,) at 16 kHz, in order.

    A recording that fits is one window, as it is. Memory holds one window and one piece at a time.
    """
    incoming = iter(pieces)
    longest = max(2 * FRAME_SAMPLES, int(longest_s * SAMPLE_RATE_HZ))
    held, origin = np.zeros(0, np.float32), 0  # samples not in a window yet, and where they begin
    seam = until = 0  # where the last window is to be taken over from, and where it ended
    ended = False
    while True:
        while not ended and len(held) <= longest:
            piece = next(incoming, None)
            ended = piece is None
            held = held if piece is None else np.concatenate((held, piece))
        if ended and origin == 0 and len(held) <= longest:
            yield Window(0.0, held)
            return
        if not len(held):
            return
        cut = _cut(held[:longest], len(held) <= longest, seam - origin, detect)
        if cut.end > cut.start:
            start = origin + cut.start
            takes_over = min(max(seam, start), until) / SAMPLE_RATE_HZ if start < until else None
            yield Window(start / SAMPLE_RATE_HZ, held[cut.start : cut.end].copy(), takes_over)
            seam, until = origin + cut.seam, origin + cut.end
        held, origin = held[cut.next :], origin + cut.next


class _Cut(NamedTuple):
    """Where a window begins and ends in the samples held, and where the search for the next one begins."""

    start: int
    end: int
    next: int
    seam: int = 0  # where the next window takes over, if that begins before the end of this one


def _cut(samples: Samples, last: bool, seam: int, detect: Detector) -> _Cut:
    """The next window in `samples` (samples,), the longest there may be.

    Args:
        samples: the recording from where the next window may begin.
        last: the recording ends with them.
        seam: where in them the window before is to be taken over from.
        detect: of speech.
    """
    probability = detect(samples)
    speech = np.flatnonzero(probability >= _SPEECH)
    if not len(speech):
        return _Cut(0, 0, len(samples) if last else _samples(max(1, len(probability) - _MARGIN)))
    first = max(0, int(speech[0]) - _MARGIN)
    pauses = speech[:-1][np.diff(speech) > _PAUSE]  # the last frames of speech before each
    pauses = pauses[pauses >= max(len(probability) // _EARLIEST, -(-seam // FRAME_SAMPLES))]
    if len(pauses):
        until = int(pauses[0]) + 1 + _PAUSE // 2
        return _Cut(_samples(first), _samples(until), _samples(until))
    if last:
        return _Cut(_samples(first), min(len(samples), _samples(int(speech[-1]) + 1 + _MARGIN)), len(samples))
    if first > _MARGIN:  # more fits into the window without the silence before it
        return _Cut(0, 0, _samples(first))
    beside = min(_OVERLAP, len(samples) // FRAME_SAMPLES // _LEAST_OVERLAPS) // 2  # that both windows hear on each side
    middle = _quietest(samples, probability, beside)
    spoken = speech[speech < middle + beside]
    end = min(middle + beside, int(spoken[-1]) + 1 + _MARGIN) if len(spoken) else first
    return _Cut(_samples(first), _samples(end), _samples(middle - beside), _samples(middle))


def _quietest(samples: Samples, probability: NDArray[np.float32], beside: int) -> int:
    """The frame in the last third of `samples`, but for `beside`, where speech is least likely and the level lowest."""
    frames = len(samples) // FRAME_SAMPLES
    blocks = samples[: frames * FRAME_SAMPLES].reshape(frames, FRAME_SAMPLES)
    loudness = 10 * np.log10(np.square(blocks).mean(axis=1) + _FLOOR) + _SPEECH_DB * probability[:frames]
    # Padded with its ends, so that a frame near an end is compared with as many neighbours as the others.
    padded = np.pad(loudness, _SMOOTHED // 2, mode="edge")
    smooth = np.convolve(padded, np.full(_SMOOTHED, 1 / _SMOOTHED), mode="valid")
    from_here = frames * 2 // 3
    return from_here + int(smooth[from_here : frames - beside + 1].argmin())


def _samples(frame: int) -> int:
    """Where a frame begins."""
    return frame * FRAME_SAMPLES
