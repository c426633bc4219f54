"""Checks audio files, and converts them to 16 kHz and one channel."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from nibble.conventions import SAMPLE_RATE_HZ
from nibble.data import media
from nibble.data.audio import MEDIA_SUFFIXES, content
from nibble.data.samples import FLOATS, INTEGER_LEVEL, Samples, at_16_khz, has_exact_length, in_range, opened, read
from nibble.errors import UserError
from nibble.writing import whole_file

END_SAMPLES = 1600
MIX = "mix"


@dataclass(frozen=True)
class Shape:
    """The length, sample rate and channels of an audio file."""

    samples: int  # per channel
    rate_hz: int
    channels: int
    peak: float = 0.0  # the largest sample, if all were read

    def difference(self) -> str:
        """How it differs from 16 kHz mono; empty if it doesn't."""
        rate = f"{self.rate_hz} Hz" if self.rate_hz != SAMPLE_RATE_HZ else ""
        channels = f"{self.channels} channels" if self.channels != 1 else ""
        level = f"samples up to {self.peak:.0f}" if self.peak > INTEGER_LEVEL else ""
        return ", ".join(filter(None, [rate, channels, level]))

    def change(self, channel: str) -> str:
        """What conversion changes: `difference`, or that a channel is asked for that isn't there."""
        return self.difference() or ("" if channel in (MIX, "0") else f"channel {channel}")


def check(place: Path | str) -> Shape:
    """Read the last 0.1 s of an audio file, or all of it if samples may be NaN or the length is a guess.

    A truncated FLAC still states its full length; only reading at the end shows that it is missing.

    Raises:
        UserError: the file is not audio, is truncated, or has samples that are NaN or infinite.
    """
    name = str(place)
    with opened(content(place), name) as file:
        if file.subtype in FLOATS or not has_exact_length(file):
            samples = read(file, name)
            peak = float(np.abs(samples).max(initial=0.0))
            return Shape(len(samples), file.samplerate, file.channels, peak if file.subtype in FLOATS else 0.0)
        file.seek(max(0, file.frames - END_SAMPLES))
        read(file, name)
        return Shape(file.frames, file.samplerate, file.channels)


def must_be_decoded(path: Path) -> bool:
    """Whether only PyAV reads a file, so that it is converted in any case."""
    return path.suffix.lower() in MEDIA_SUFFIXES


def whole(path: Path, channel: str = MIX) -> tuple[Samples, str]:
    """Read a whole audio file as (samples,) at 16 kHz in [-1, 1], and say what was converted.

    Args:
        path: the file or `member`, of any rate, channels and depth.
        channel: a number counted from 0, or "mix" for the mean of all. If they cancel each other, the loudest is taken.

    Raises:
        UserError: it can't be decoded, or has no such channel.
    """
    if must_be_decoded(path):
        channels, rate_hz = media.decode(path)
        samples, change = media.one_channel(channels, channel, str(path))
        return at_16_khz(samples, rate_hz), f"{path.suffix.lower()}{change}"
    with opened(content(path), str(path)) as file:
        if channel != MIX and int(channel) >= file.channels:
            raise UserError(
                f"{path} has {file.channels} channels, counted from 0, and no channel {channel}; change data.channel"
            )
        samples = read(file, str(path), channel=None if channel == MIX else int(channel))
        peak = float(np.abs(samples).max(initial=0.0)) if file.subtype in FLOATS else 0.0
        shape = Shape(len(samples), file.samplerate, file.channels, peak)
    return at_16_khz(in_range(samples), shape.rate_hz), shape.difference()


def convert(source: Path, target: Path, channel: str = MIX) -> str:
    """Write `source` as 16 kHz mono FLAC to `target`, and say how it differed from that."""
    samples, change = whole(source, channel)
    with whole_file(target) as path:
        try:
            soundfile.write(os.fsencode(path), samples.clip(-1, 1), SAMPLE_RATE_HZ, format="FLAC", subtype="PCM_16")
        except soundfile.LibsndfileError as error:
            raise OSError(f"can't write {target}: {error.error_string}") from error
    return change
