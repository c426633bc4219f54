"""Writes a corpus in LibriSpeech layout.

FOLDER/LibriSpeech/SPEAKERS.TXT
FOLDER/LibriSpeech/PART/SPEAKER/CHAPTER/SPEAKER-CHAPTER-0000.flac
FOLDER/LibriSpeech/PART/SPEAKER/CHAPTER/SPEAKER-CHAPTER.trans.txt
"""

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from nibble.conventions import SAMPLE_RATE_HZ


@dataclass(frozen=True)
class Utterance:
    """One spoken sentence."""

    text: str
    samples: NDArray[np.int16]  # (samples,) at `SAMPLE_RATE_HZ`


@dataclass(frozen=True)
class Speaker:
    """One line of SPEAKERS.TXT."""

    id: int
    sex: str  # F, M or ?
    part: str
    duration_s: float
    name: str


def write_chapter(folder: Path, part: str, speaker: int | str, chapter: int, utterances: list[Utterance]) -> None:
    """Write the utterances as `part`/`speaker`/`chapter` below `folder`/LibriSpeech."""
    place = folder / "LibriSpeech" / part / str(speaker) / str(chapter)
    place.mkdir(parents=True)
    lines = []
    for index, utterance in enumerate(utterances):
        name = f"{speaker}-{chapter}-{index:04d}"
        # Through memory, because soundfile reports a full disk only as "System error".
        flac = io.BytesIO()
        soundfile.write(flac, utterance.samples, SAMPLE_RATE_HZ, format="FLAC", subtype="PCM_16")
        (place / f"{name}.flac").write_bytes(flac.getvalue())
        lines.append(f"{name} {utterance.text}\n")
    (place / f"{speaker}-{chapter}.trans.txt").write_text("".join(lines), encoding="utf-8")


def write_speakers(folder: Path, speakers: list[Speaker]) -> None:
    """Write SPEAKERS.TXT as LibriSpeech has it."""
    lines = [";ID  |SEX| SUBSET           |MINUTES| NAME\n"]
    lines += [f"{s.id:<5}| {s.sex} | {s.part:<17}| {s.duration_s / 60:5.2f} | {s.name}\n" for s in speakers]
    (folder / "LibriSpeech" / "SPEAKERS.TXT").write_text("".join(lines), encoding="utf-8")


def files_hash(folder: Path) -> str:
    """SHA-256 of the names and sizes of all audio below `folder`/LibriSpeech and of all transcripts; reads no audio."""
    digest = hashlib.sha256()
    corpus = folder / "LibriSpeech"
    for path in sorted(corpus.rglob("*.flac")):
        digest.update(f"{path.relative_to(corpus).as_posix()} {path.stat().st_size}\n".encode())
    for path in sorted(corpus.rglob("*.trans.txt")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def content_hash(folder: Path) -> str:
    """SHA-256 of all transcripts and decoded samples below `folder`/LibriSpeech; any FLAC encoder gives the same."""
    digest = hashlib.sha256()
    for path in sorted((folder / "LibriSpeech").rglob("*.trans.txt")):
        for line in path.read_text(encoding="utf-8").splitlines():
            samples, _ = soundfile.read(path.parent / f"{line.split()[0]}.flac", dtype="int16")
            digest.update(line.encode())
            digest.update(samples.astype("<i2").tobytes())
    return digest.hexdigest()
