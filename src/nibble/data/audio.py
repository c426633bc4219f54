"""Samples from files: checked, converted to 16 kHz mono, and for small corpora decoded only once."""

import hashlib
import io
import os
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import soundfile
import torch
import torchaudio
from lhotse import CutSet, MonoCut
from numpy.typing import NDArray

from nibble.data.progress import track
from nibble.errors import UserError
from nibble.features import SAMPLE_RATE

AUDIO_SUFFIXES = (".flac", ".opus", ".ogg", ".wav")
END_SAMPLES = 1600
MAX_STORED_HOURS = 10.0


@dataclass(frozen=True)
class Shape:
    """What an audio file holds."""

    samples: int  # per channel
    rate_hz: int
    channels: int

    def difference(self) -> str:
        """How it differs from 16 kHz mono; empty if it doesn't."""
        rate = f"{self.rate_hz} Hz" if self.rate_hz != SAMPLE_RATE else ""
        channels = f"{self.channels} channels" if self.channels != 1 else ""
        return ", ".join(filter(None, [rate, channels]))


def check(path: Path) -> Shape:
    """Open `path` and read its last tenth of a second.

    A truncated FLAC still promises its full length; only reading where the end should be tells.

    Raises:
        UserError: not audio, or truncated.
    """
    try:
        with soundfile.SoundFile(path) as file:
            shape = Shape(file.frames, file.samplerate, file.channels)
            wanted = min(END_SAMPLES, file.frames)
            file.seek(file.frames - wanted)
            end = file.read(wanted, always_2d=True)
    except soundfile.LibsndfileError as error:
        raise UserError(f"broken or truncated audio ({path}: {error})") from error
    if len(end) < wanted:
        raise UserError(f"truncated audio ({path})")
    return shape


def member(archive: Path, start: int, size_bytes: int) -> str:
    """How the source of a cut names a file within a tar file: by the place of its bytes."""
    return f"{archive}:{start}:{size_bytes}"


def _opened(path: Path | str) -> Path | str | io.BytesIO:
    """What soundfile opens: the file at `path` or, of a `member`, its bytes."""
    archive, _, place = str(path).partition(".tar:")
    if not place:
        return path
    start, size_bytes = map(int, place.split(":"))
    with open(f"{archive}.tar", "rb") as file:
        file.seek(start)
        return io.BytesIO(file.read(size_bytes))


def decode(path: Path | str, start: int = 0, count: int = -1) -> NDArray[np.float32]:
    """Samples (count,) from `start` on of a 16 kHz mono file, or `member`; all of them by default.

    Raises:
        UserError: the file can't be decoded.
    """
    cure = "replace the file, or remove it with its transcript"
    try:
        with soundfile.SoundFile(_opened(path)) as file:
            left = file.frames - start
            wanted = left if count < 0 else min(count, left)
            file.seek(start)
            samples: NDArray[np.float32] = file.read(wanted, dtype="float32")
    except soundfile.LibsndfileError as error:
        raise UserError(f"can't decode {path}: {error}; {cure}") from error
    if len(samples) < wanted:
        raise UserError(f"can't decode {path} after {len(samples)} of {wanted} samples; {cure}")
    return samples


def convert(source: Path, target: Path) -> Path:
    """Write `source` as 16 kHz mono FLAC to `target`: channels averaged, then resampled."""
    try:
        samples, rate_hz = soundfile.read(source, dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        raise UserError(f"can't decode {source}: {error}") from error
    mono = torch.from_numpy(samples.mean(axis=1))
    resampled = torchaudio.functional.resample(mono, rate_hz, SAMPLE_RATE).clamp(-1, 1)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_suffix(f".{os.getpid()}.partial")
    try:
        soundfile.write(partial, resampled.numpy(), SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    except soundfile.LibsndfileError as error:
        raise OSError(f"can't write {partial}: {error}") from error
    partial.replace(target)
    return target


class Waveforms:
    """Samples by path. Parts of up to ten hours are decoded once into a file that all loader processes map.

    A loader on two cores has no time to decode FLAC for a batch with four talkers behind each utterance.
    """

    def __init__(self, cache_dir: Path) -> None:
        self.cache_dir = cache_dir
        self._places: dict[str, tuple[Path, int, int]] = {}  # audio path -> (store, first sample, samples)

    def add(self, cuts: CutSet, name: str) -> None:
        """Decode the recordings of `cuts`, unless that was done before or they are too long to keep."""
        lengths = {source(cut): cut.recording.num_samples for cut in cuts}
        if sum(lengths.values()) > MAX_STORED_HOURS * 3600 * SAMPLE_RATE:
            return
        store = self.cache_dir / f"{name}-{fingerprint(cuts)}.pcm"
        if not store.is_file():
            _write_store(store, list(lengths), name)
        if store.stat().st_size != 2 * sum(lengths.values()):
            raise UserError(f"{store} is not as long as the audio it was made from; remove it and start again")
        start = 0
        for path, samples in lengths.items():
            self._places[path] = (store, start, samples)
            start += samples

    def read(self, path: str, start: int = 0, count: int = -1) -> NDArray[np.float32]:
        """Samples (count,) in [-1, 1] of the file at `path` from `start` on; all of them by default."""
        if path not in self._places:
            return decode(path, start, count)
        store, first, samples = self._places[path]
        stop = samples if count < 0 else min(samples, start + count)
        return _mapped(store)[first + start : first + stop].astype(np.float32) / np.float32(32768)


def source(cut: MonoCut) -> str:
    """The audio file of a cut."""
    return str(cut.recording.sources[0].source)


def fingerprint(cuts: CutSet) -> str:
    """A name for what the audio files of `cuts` hold: their paths, sizes and times of change."""
    digest = hashlib.sha256()
    for cut in cuts:
        status = os.stat(re.sub(r"(\.tar):\d+:\d+$", r"\1", source(cut)))
        digest.update(f"{source(cut)} {cut.num_samples} {status.st_size} {status.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:16]


def _write_store(store: Path, paths: list[str], name: str) -> None:
    store.parent.mkdir(parents=True, exist_ok=True)
    partial = store.with_suffix(f".{os.getpid()}.partial")
    with ThreadPoolExecutor(os.cpu_count()) as pool, partial.open("wb") as file:
        for samples in track(pool.map(decode, paths), f"decoding {name}", len(paths)):
            file.write((samples * 32768).clip(-32768, 32767).round().astype("<i2").tobytes())
    partial.replace(store)


@lru_cache(maxsize=64)
def _mapped(store: Path) -> NDArray[np.int16]:
    return np.memmap(store, dtype="<i2", mode="r")
