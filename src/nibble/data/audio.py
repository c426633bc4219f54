"""Reads samples from audio files, archives and stretches of long recordings; small corpora are decoded once."""

import hashlib
import io
import os
import re
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

import numpy as np
from lhotse import MonoCut
from numpy.typing import NDArray

from nibble.data.cuts import Cuts
from nibble.data.samples import Samples, opened, read
from nibble.errors import UserError
from nibble.progress import track
from nibble.writing import whole_file

# What libsndfile reads, in any mixture of capitals.
AUDIO_SUFFIXES = (
    *(".flac", ".opus", ".ogg", ".oga", ".wav", ".wave", ".mp3", ".aif", ".aiff", ".aifc", ".au", ".snd", ".caf"),
    *(".w64", ".rf64", ".sph", ".voc"),
)
MEDIA_SUFFIXES = (".m4a", ".mp4", ".mov", ".aac", ".webm", ".mkv", ".mka", ".wma", ".amr", ".3gp")  # needs PyAV
MAX_STORED_HOURS = 10.0
_MEMBER = re.compile(r"(.*\.(?:tar|arrow)):(\d+):(\d+)", re.DOTALL)
_STRETCH = re.compile(r"(.*)\[(\d+):(\d+)\]", re.DOTALL)


def is_audio(path: Path) -> bool:
    """Whether a file is audio by its name."""
    return path.suffix.lower() in (*AUDIO_SUFFIXES, *MEDIA_SUFFIXES)


def member(archive: Path, start: int, size_bytes: int) -> str:
    """The name of a file within a tar or Arrow file: the archive and the place of its bytes."""
    return f"{archive}:{start}:{size_bytes}"


def is_member(place: str) -> bool:
    """Whether a place is within a tar or Arrow file."""
    return _MEMBER.fullmatch(place) is not None


def stretch(file: str, first: int, samples: int) -> str:
    """The name of a stretch of a longer file, written like a slice of its samples."""
    return f"{file}[{first}:{first + samples}]"


def is_stretch(place: str) -> bool:
    """Whether a place is a stretch of a longer file."""
    return _STRETCH.fullmatch(place) is not None


def stretch_of(place: str) -> tuple[int, int]:
    """The first sample of a stretch and the one after its last."""
    found = _STRETCH.fullmatch(place)
    assert found is not None, place
    return int(found[2]), int(found[3])


def file_of(place: str) -> str:
    """The file that a place is in: the archive of a `member`, the longer file of a `stretch`."""
    found = _MEMBER.fullmatch(place) or _STRETCH.fullmatch(place)
    return found[1] if found else place


def decode(place: Path | str, start: int = 0, count: int = -1) -> Samples:
    """Decode (count,) samples of a 16 kHz mono file, `member` or `stretch`, from `start` on; all by default.

    Raises:
        UserError: the file can't be decoded.
    """
    place = str(place)
    if is_stretch(place):
        first, end = stretch_of(place)
        left = max(0, end - first - start)
        start, count, place = first + start, left if count < 0 else min(count, left), file_of(place)
    try:
        with opened(content(place), place) as file:
            file.seek(start)
            return read(file, place, count)
    except UserError as error:
        raise UserError(f"{error}; replace the file, or remove it with its transcript") from error


def content(place: Path | str) -> Path | BinaryIO:
    """Open a place: the file itself, or the bytes of a `member`."""
    found = _MEMBER.fullmatch(str(place))
    if found is None:
        return Path(place)
    try:
        with open(found[1], "rb") as archive:
            archive.seek(int(found[2]))
            return io.BytesIO(archive.read(min(int(found[3]), os.fstat(archive.fileno()).st_size)))
    except (OSError, OverflowError) as error:
        raise UserError(f"{found[1]} cannot be read: {error}") from error


class Waveforms:
    """Reads samples by place. Parts of up to ten hours are decoded once, into a file that all loader processes map.

    A loader on two cores has no time to decode FLAC for a batch with four talkers behind each utterance.
    """

    def __init__(self, cache_dir: Path) -> None:
        self.cache_dir = cache_dir
        self._places: dict[str, tuple[Path, int, int]] = {}  # place -> (store, first sample, samples)

    def add(self, cuts: Cuts, name: str) -> None:
        """Decode the recordings of `cuts`, unless that was done before or they are too long to keep."""
        if cuts.durations_s.sum() > MAX_STORED_HOURS * 3600:
            return
        lengths = {source(cut): cut.recording.num_samples for cut in cuts}
        store = self.cache_dir / f"{name}-{fingerprint(cuts)}.pcm"
        if not store.is_file():
            _write_store(store, list(lengths), name)
        if store.stat().st_size != 2 * sum(lengths.values()):
            raise UserError(f"{store} is not as long as the audio it was made from; remove it and start again")
        start = 0
        for place, samples in lengths.items():
            self._places[place] = (store, start, samples)
            start += samples

    def read(self, place: str, start: int = 0, count: int = -1) -> Samples:
        """Samples (count,) in [-1, 1] at a place from `start` on; all of them by default."""
        if place not in self._places:
            return decode(place, start, count)
        store, first, samples = self._places[place]
        stop = samples if count < 0 else min(samples, start + count)
        return _mapped(store)[first + start : first + stop].astype(np.float32) / np.float32(32768)


def source(cut: MonoCut) -> str:
    """The place of the audio of a cut."""
    return str(cut.recording.sources[0].source)


def fingerprint(cuts: Cuts) -> str:
    """A hash of the audio files of `cuts`: of their paths, sizes and times of change."""
    digest = hashlib.sha256()
    for cut in cuts:
        status = os.stat(file_of(source(cut)))
        where = os.path.abspath(source(cut))  # the same from any working directory
        digest.update(os.fsencode(f"{where} {cut.num_samples} {status.st_size} {status.st_mtime_ns}\n"))
    return digest.hexdigest()[:16]


def _write_store(store: Path, places: list[str], name: str) -> None:
    with ThreadPoolExecutor(os.cpu_count()) as pool, whole_file(store) as path, path.open("wb") as file:
        for samples in track(pool.map(decode, places), f"decoding {name}", len(places)):
            file.write((samples * 32768).clip(-32768, 32767).round().astype("<i2").tobytes())


@lru_cache(maxsize=64)
def _mapped(store: Path) -> NDArray[np.int16]:
    return np.memmap(store, dtype="<i2", mode="r")
