"""Reads a recording of any length piece by piece, at 16 kHz."""

from collections.abc import Iterator
from math import gcd
from pathlib import Path

import numpy as np
import soundfile

from nibble.conventions import SAMPLE_RATE_HZ
from nibble.data.conversion import must_be_decoded, whole
from nibble.data.samples import FLOATS, INTEGER_LEVEL, Samples, at_16_khz, opened, read
from nibble.errors import UserError

PIECE_S = 30.0
_BESIDE_S = 0.1  # more than a resampling filter reaches


def duration_s(path: Path) -> float | None:
    """The length of a recording; None if only decoding it would tell.

    Raises:
        UserError: the file is absent, is not audio, or holds no samples.
    """
    if not path.is_file():
        why = "is a folder within a folder; give it by itself" if path.is_dir() else "does not exist"
        raise UserError(f"{path} {why}")
    if must_be_decoded(path):
        return None
    with opened(path, whole=False) as file:
        if not file.frames:
            raise UserError(f"{path} holds no samples: 0 s of audio")
        return float(file.frames / file.samplerate)


def pieces(path: Path, piece_s: float = PIECE_S) -> Iterator[Samples]:
    """The samples of a recording at 16 kHz in [-1, 1], one channel: (samples,) of about `piece_s` at a time.

    Together they are what resampling the whole recording gives. Files that only FFmpeg reads are decoded whole.

    Raises:
        UserError: the file is not audio, is truncated, or holds samples that are NaN or infinite.
    """
    if must_be_decoded(path):
        yield whole(path)[0]
        return
    with opened(path, whole=False) as file:
        rate_hz, scale = file.samplerate, _scale(file, path)
        up, down = (each // gcd(rate_hz, SAMPLE_RATE_HZ) for each in (SAMPLE_RATE_HZ, rate_hz))
        # Lengths at the file's rate, in multiples of `down`: there samples of both rates coincide.
        step = max(1, round(piece_s * rate_hz / down)) * down
        beside = 0 if up == down else -(-int(_BESIDE_S * rate_hz) // down) * down
        held, done = np.zeros(0, np.float32), 0  # `done` samples at the start of `held` are resampled already
        last = False
        while not last:
            block = read(file, str(path), step) * scale
            last = len(block) < step or file.tell() >= file.frames
            held = np.concatenate((held, block))
            ready = len(held) if last else len(held) - beside
            if ready > done:
                until = None if last else ready * up // down
                yield at_16_khz(held, rate_hz)[done * up // down : until]
            keep = max(0, ready - beside)
            held, done = held[keep:], ready - keep


def _scale(file: soundfile.SoundFile, path: Path) -> np.float32:
    """The factor that brings the samples of an opened file into [-1, 1]: floats may be in the range of integers."""
    peak = 0.0
    while file.subtype in FLOATS and file.tell() < file.frames:
        block = read(file, str(path), SAMPLE_RATE_HZ * int(PIECE_S))
        peak = max(peak, float(np.abs(block).max(initial=0.0)))
    file.seek(0)
    if peak <= INTEGER_LEVEL:
        return np.float32(1)
    return np.float32(2.0**-15 if peak <= 2.0**15 else 2.0**-31)
