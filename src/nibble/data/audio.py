"""Audio files: checked, converted to 16 kHz mono, and for small corpora decoded only once."""

import hashlib
import io
import os
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile
from lhotse import CutSet, MonoCut
from numpy.typing import NDArray

from nibble.data.samples import FLOATS, Samples, at_16_khz, opened, read
from nibble.errors import UserError
from nibble.features.kaldi import SAMPLE_RATE
from nibble.progress import track
from nibble.writing import whole_file

AUDIO_SUFFIXES = (".flac", ".opus", ".ogg", ".wav")
END_SAMPLES = 1600
MAX_STORED_HOURS = 10.0
_MEMBER = re.compile(r"(.*\.tar):(\d+):(\d+)", re.DOTALL)


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


def check(audio: Path | BinaryIO, name: str = "") -> Shape:
    """Read the last tenth of a second of an audio file; of samples that may be NaN, all.

    A truncated FLAC still promises its full length; only reading where the end should be tells.

    Args:
        audio: the file, or its bytes as a stream.
        name: what messages call it; its path by default.

    Raises:
        UserError: not audio, truncated, or with samples that are no numbers.
    """
    name = name or str(audio)
    with opened(audio, name) as file:
        if file.subtype not in FLOATS:
            file.seek(max(0, file.frames - END_SAMPLES))
        read(file, name)
        return Shape(file.frames, file.samplerate, file.channels)


def member(archive: Path, start: int, size_bytes: int) -> str:
    """How the source of a cut names a file within a tar file: by the place of its bytes."""
    return f"{archive}:{start}:{size_bytes}"


def decode(path: Path | str, start: int = 0, count: int = -1) -> Samples:
    """Samples (count,) from `start` on of a 16 kHz mono file, or `member`; all of them by default.

    Raises:
        UserError: the file can't be decoded.
    """
    try:
        with opened(_bytes(path), str(path)) as file:
            file.seek(start)
            return read(file, str(path), count)
    except UserError as error:
        raise UserError(f"{error}; replace the file, or remove it with its transcript") from error


def _bytes(path: Path | str) -> Path | BinaryIO:
    """The file at `path` or, of a `member`, its bytes."""
    place = _MEMBER.fullmatch(str(path))
    if place is None:
        return Path(path)
    try:
        with open(place[1], "rb") as archive:
            archive.seek(int(place[2]))
            return io.BytesIO(archive.read(min(int(place[3]), os.fstat(archive.fileno()).st_size)))
    except OSError as error:
        raise UserError(f"{place[1]} cannot be read: {error.strerror}") from error


def convert(source: Path, target: Path) -> Path:
    """Write `source` as 16 kHz mono FLAC to `target`: channels averaged, then resampled."""
    with opened(source) as file:
        samples = at_16_khz(read(file, str(source)), file.samplerate)
    with whole_file(target) as path:
        try:
            soundfile.write(os.fsencode(path), samples.clip(-1, 1), SAMPLE_RATE, format="FLAC", subtype="PCM_16")
        except soundfile.LibsndfileError as error:
            raise OSError(f"can't write {target}: {error.error_string}") from error
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

    def read(self, path: str, start: int = 0, count: int = -1) -> Samples:
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
        place = _MEMBER.fullmatch(source(cut))
        status = os.stat(place[1] if place else source(cut))
        where = os.path.abspath(source(cut))  # the same from any working directory
        digest.update(os.fsencode(f"{where} {cut.num_samples} {status.st_size} {status.st_mtime_ns}\n"))
    return digest.hexdigest()[:16]


def _write_store(store: Path, paths: list[str], name: str) -> None:
    with ThreadPoolExecutor(os.cpu_count()) as pool, whole_file(store) as path, path.open("wb") as file:
        for samples in track(pool.map(decode, paths), f"decoding {name}", len(paths)):
            file.write((samples * 32768).clip(-32768, 32767).round().astype("<i2").tobytes())


@lru_cache(maxsize=64)
def _mapped(store: Path) -> NDArray[np.int16]:
    return np.memmap(store, dtype="<i2", mode="r")
