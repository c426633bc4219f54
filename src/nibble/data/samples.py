"""Reads audio files from anywhere, safely: bounded memory, finite samples, plausible sample rates.

What a file's header claims (its length and sample rate) is checked before memory is allocated, and the samples are
checked before they are used: one NaN sample would make every weight NaN a step later.
"""

import os
import shlex
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from math import gcd
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import soundfile
import torch
import torchaudio
from numpy.typing import NDArray
from scipy.signal import firwin, resample_poly

from nibble.conventions import SAMPLE_RATE_HZ
from nibble.data.headers import broken_promise
from nibble.errors import UserError

MIN_RATE_HZ, MAX_RATE_HZ = 1_000, 400_000  # the fastest recorders have 384 kHz
MAX_SAMPLES = 2**27  # of one channel, before and after resampling: 140 minutes at 16 kHz, 51 at 44.1 kHz
MAX_CHANNEL_SAMPLES = 2**28  # of all channels together
MAX_LEVEL = 2.0**31  # the range of 32-bit integers; the power spectrum of samples far above it is infinite
FLOATS = ("FLOAT", "DOUBLE")  # encodings that can hold NaN
INTEGER_LEVEL = 8.0  # floats above are integers that a program has not divided by their range
MP3_TOLERANCE_S = 0.5  # by which the length of an MP3 may be guessed wrong, as in Lhotse
_BLOCK_SAMPLES = 2**20  # read at a time, of all channels together
_CANCELLED = (
    1e-3  # of the energy of the loudest channel that their mean has at least, unless they are of opposite phase
)
_LONG_PERIOD = 1_000  # samples of a file between two that fall together with samples at 16 kHz

Samples = NDArray[np.float32]


@contextmanager
def opened(audio: Path | BinaryIO, name: str = "", whole: bool = True) -> Iterator[soundfile.SoundFile]:
    """Open an audio file if its header is plausible; errors while it is read are `UserError`s too.

    Args:
        audio: the file, or its bytes as a stream.
        name: what messages call it; its path by default.
        whole: whether the file may be read whole, so that its length is limited; otherwise it may last for days.

    Raises:
        UserError: it is not a file, not audio, truncated, too long, or has a rate that no speech has.
    """
    name = name or str(audio)
    try:
        if isinstance(audio, Path):
            status = audio.stat()
            if not stat.S_ISREG(status.st_mode):
                raise UserError(f"{name} is not a file")  # a named pipe would be waited for
            if status.st_size == 0:
                raise UserError(f"{name} is empty: it has 0 bytes")
        _check_promise(audio, name)
        with soundfile.SoundFile(os.fsencode(audio) if isinstance(audio, Path) else audio) as file:
            check_rate(name, file.samplerate)
            if whole:
                _check_length(file, name)
            yield file
    except soundfile.LibsndfileError as error:
        why = error.error_string
        raise UserError(
            f"{name} is not audio that can be read, or is truncated: {why} If another program plays it, convert it: "
            f"{ffmpeg_line(name)}"
        ) from error
    except OSError as error:
        raise UserError(f"{name} cannot be read: {error.strerror or error}") from error
    except (soundfile.SoundFileError, TypeError, ValueError, MemoryError) as error:
        raise UserError(f"{name} is not audio that can be read, or is truncated: {error}") from error


def ffmpeg_line(name: str) -> str:
    """The command that converts any file to 16 kHz mono."""
    return f"ffmpeg -i {shlex.quote(name)} -ac 1 -ar {SAMPLE_RATE_HZ} NEW.flac"


def _check_promise(audio: Path | BinaryIO, name: str) -> None:
    if isinstance(audio, Path):
        with audio.open("rb") as file:
            broken = broken_promise(file)
    else:
        broken = broken_promise(audio)
    if broken:
        raise UserError(f"{name}: {broken}; record or copy it again, or keep what is there: {ffmpeg_line(name)}")


def check_rate(name: str, rate_hz: int) -> None:
    """Raise `UserError` if no speech is recorded at this rate."""
    if not MIN_RATE_HZ <= rate_hz <= MAX_RATE_HZ:
        raise UserError(f"{name} claims {rate_hz} samples a second; speech has {MIN_RATE_HZ} to {MAX_RATE_HZ}")


def _check_length(file: soundfile.SoundFile, name: str) -> None:
    rate_hz, samples, channels = file.samplerate, file.frames, file.channels
    if samples * max(1.0, SAMPLE_RATE_HZ / rate_hz) > MAX_SAMPLES or samples * channels > MAX_CHANNEL_SAMPLES:
        raise UserError(
            f"{name} claims {samples:,} samples in each of {channels} channels, {samples / rate_hz / 3600:,.1f} hours; "
            f"a file may hold {min(MAX_SAMPLES, MAX_CHANNEL_SAMPLES // channels):,}: cut it into shorter ones"
        )


def has_exact_length(file: soundfile.SoundFile) -> bool:
    """Whether `frames` is what the file holds; of an MP3 it may be a guess from its first frames."""
    return bool(file.format != "MP3")


def read(
    file: soundfile.SoundFile, name: str, count: int = -1, dtype: str = "float32", channel: int | None = None
) -> NDArray[Any]:
    """Read the next samples (count,) of an opened file; by default all that are left.

    Args:
        file: the file, at the first sample.
        name: what messages call it.
        count: how many samples, at most.
        dtype: of the samples.
        channel: counted from 0; None for the mean of all or, if they cancel each other, the loudest.

    Raises:
        UserError: there are fewer, or some are NaN or infinite.
    """
    first = file.tell()
    left = file.frames - first
    samples = np.empty(left if count < 0 else min(count, left), dtype)  # no memory is taken before it is written to
    energies, done = np.zeros(file.channels), 0
    while done < len(samples):
        block = file.read(min(len(samples) - done, _BLOCK_SAMPLES // file.channels), dtype=dtype, always_2d=True)
        if not len(block):
            if not has_exact_length(file) and len(samples) - done <= MP3_TOLERANCE_S * file.samplerate:
                samples = samples[:done]
                break
            raise UserError(f"{name} is truncated: it promises {file.frames} samples and holds {first + done}")
        here = samples[done : done + len(block)]
        if file.channels == 1 or channel is not None:
            here[:] = block[:, channel or 0]
        else:
            here[:] = block.mean(axis=1)
            energies += np.square(block, dtype=np.float64).sum(axis=0)
        done += len(block)
    if energies.any() and np.square(samples, dtype=np.float64).sum() < _CANCELLED * energies.max():
        file.seek(first)
        return read(file, name, count, dtype, int(energies.argmax()))
    require_numbers(samples, name, file.samplerate, first)
    return samples


def loudest_if_cancelled(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """The mean (samples,) of the channels of (samples, channels) or, if they cancel each other, the loudest."""
    mean: NDArray[np.float32] = samples.mean(axis=1)
    energies = np.square(samples, dtype=np.float64).sum(axis=0)
    if np.square(mean, dtype=np.float64).sum() < _CANCELLED * energies.max():
        return samples[:, energies.argmax()].copy()
    return mean


def in_range(samples: NDArray[Any]) -> NDArray[Any]:
    """Scale `samples` (samples,) to [-1, 1] if they are in the range of 16- or 32-bit integers."""
    peak = float(np.abs(samples).max(initial=0.0))
    if peak <= INTEGER_LEVEL:
        return samples
    return samples / samples.dtype.type(2.0**15 if peak <= 2.0**15 else 2.0**31)


def as_numbers(samples: NDArray[Any]) -> NDArray[np.float32]:
    """Convert integers of any width, or floats, to float32 in [-1, 1]."""
    if samples.dtype.kind == "f":
        numbers = samples.astype(np.float32)
        require_numbers(numbers.ravel(), "it")
        return numbers
    middle = 128 if samples.dtype == np.uint8 else 0
    return ((samples.astype(np.float64) - middle) / 2.0 ** (8 * samples.dtype.itemsize - 1)).astype(np.float32)


def require_numbers(samples: NDArray[Any], name: str, rate_hz: int = SAMPLE_RATE_HZ, first: int = 0) -> None:
    """Raise `UserError` if one of the samples (samples,) is NaN, infinite or beyond `MAX_LEVEL`.

    Args:
        samples: from the sample number `first` of the file on.
        name: of the file, for the message.
        rate_hz: of the samples.
        first: counted from 0.
    """
    count, earliest = 0, -1
    for start in range(0, len(samples), _BLOCK_SAMPLES):
        wrong = ~(np.abs(samples[start : start + _BLOCK_SAMPLES]) <= MAX_LEVEL)
        if wrong.any():
            count += int(wrong.sum())
            earliest = earliest if earliest >= 0 else start + int(wrong.argmax())
    if count:
        raise UserError(
            f"{name} holds {count} samples that are not numbers (NaN or infinity), the first at "
            f"{(first + earliest) / rate_hz:.3f} s; convert it to 16-bit integers, or record it again"
        )


def at_16_khz(samples: NDArray[Any], rate_hz: int) -> NDArray[Any]:
    """Resample samples (samples,) from `rate_hz`, which `opened` has accepted, to 16 kHz."""
    common = gcd(rate_hz, SAMPLE_RATE_HZ)
    up, down = SAMPLE_RATE_HZ // common, rate_hz // common
    if up == down or not len(samples):
        return samples
    if down >= _LONG_PERIOD:  # 44,101 Hz and the like: torchaudio would keep a filter of gigabytes, for 16,000 phases
        return resample_poly(samples, up, down, window=_low_pass(max(up, down)).astype(samples.dtype))
    # In stretches, each with what the filter sees beside it: torchaudio takes six times the memory of its result.
    beside = -(-8 * max(rate_hz, SAMPLE_RATE_HZ) // SAMPLE_RATE_HZ // down) * down
    stretch = max(1, _BLOCK_SAMPLES // down) * down
    pieces = []
    for start in range(0, len(samples), stretch):
        before = min(start, beside)
        piece = torch.from_numpy(samples[start - before : start + stretch + beside])
        resampled = torchaudio.functional.resample(piece, rate_hz, SAMPLE_RATE_HZ)[before * up // down :]
        pieces.append(resampled[: stretch * up // down].numpy())
    return np.concatenate(pieces) if len(pieces) != 1 else pieces[0]


@lru_cache(maxsize=2)  # noise at such a rate is resampled for each utterance
def _low_pass(most: int) -> NDArray[np.float32]:
    """The filter that SciPy would use in `resample_poly` if its larger factor is `most`."""
    return firwin(20 * most + 1, 1 / most, window=("kaiser", 5.0)).astype(np.float32)
