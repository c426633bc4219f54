"""A part in LibriSpeech layout -> cuts, with every file checked once and the outcome kept.

PART/SPEAKER/CHAPTER/SPEAKER-CHAPTER-0000.flac     or .opus, .ogg, .wav
PART/SPEAKER/CHAPTER/SPEAKER-CHAPTER.trans.txt     "SPEAKER-CHAPTER-0000 THE WORDS" a line
"""

import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from lhotse import CutSet

from nibble.data.audio import AUDIO_SUFFIXES, check, convert
from nibble.data.files import files
from nibble.data.sources.librispeech import Findings, Utterance, cuts, kept, report
from nibble.data.sources.lines import lines
from nibble.errors import UserError
from nibble.features.kaldi import WINDOW_SAMPLES
from nibble.progress import track

FORMAT = "2"  # of what is kept about a part


@dataclass(frozen=True)
class Claim:
    """One line of a transcript, and the audio of that name."""

    id: str
    text: str
    audio: Path


def read_part(folder: Path, part: str, cache_dir: Path, max_bad_utterances: int = 0) -> CutSet:
    """The utterances of one part, in the order of their ids, each 16 kHz and mono, text in upper case.

    Utterances without audio, text or readable samples are left out and named. Audio at another rate or with
    several channels is converted once into `cache_dir`. Later calls read what the first one found, until a file
    of the part is added, removed, renamed, or changes its size or time.

    Args:
        folder: the folder of parts.
        part: its name.
        cache_dir: for manifests and converted audio.
        max_bad_utterances: how many utterances of the part may be left out.

    Raises:
        UserError: nothing to read, or more left out than allowed.
    """
    root = folder / part
    if not root.is_dir():
        raise UserError(f"no folder {root}")
    listing = _list(root)
    if not listing:
        raise UserError(
            f"{root} holds neither audio nor transcripts; "
            "LibriSpeech layout is SPEAKER/CHAPTER/*.flac with SPEAKER-CHAPTER.trans.txt beside them"
        )
    digest = hashlib.sha256(os.fsencode(f"{FORMAT} {root.resolve()}"))
    for path, size_bytes, changed_ns in listing:
        digest.update(os.fsencode(f"{path.relative_to(root)} {size_bytes} {changed_ns}\n"))
    name = f"{part}-{digest.hexdigest()[:16]}"
    converted = cache_dir / f"{name}-converted"
    paths = [path for path, _, _ in listing]
    names = {path.relative_to(root).as_posix() for path in paths}
    found = kept(
        cache_dir / f"{name}.jsonl.gz",
        part,
        check=lambda: _check_part(root, paths, converted),
        there=lambda one: (converted / one.audio).is_file() if one.converted else one.audio in names,
    )
    report(root, found, max_bad_utterances)
    return cuts(found, root, converted)


def _list(root: Path) -> list[tuple[Path, int, int]]:
    """(path, size, time of change) of each transcript and audio file below `root`, sorted."""
    found = []
    for path in files(root):
        if path.name.endswith((".trans.txt", *AUDIO_SUFFIXES)):
            status = path.stat() if path.exists() else path.lstat()  # a link to nowhere is named when it is checked
            found.append((path, status.st_size, status.st_mtime_ns))
    return sorted(found)


def _check_part(root: Path, paths: list[Path], converted: Path) -> Findings:
    """Check every utterance of a part."""
    claims, problems = _pair(paths)
    found = Findings(problems=problems)
    with ThreadPoolExecutor(min(32, 2 * (os.cpu_count() or 1))) as pool:
        outcomes = pool.map(lambda claim: _check(claim, root, converted), claims)
        for claim, outcome in zip(claims, track(outcomes, f"checking {root.name}", len(claims)), strict=True):
            if isinstance(outcome, str):
                problems[claim.id] = outcome
                continue
            utterance, change = outcome
            found.good.append(utterance)
            if change:
                found.changes[claim.id] = change
    return found


def _pair(paths: list[Path]) -> tuple[list[Claim], dict[str, str]]:
    """What has audio and text, sorted by id, and a reason for each that lacks one."""
    audio = {path.name.removesuffix(path.suffix): path for path in paths if path.suffix in AUDIO_SUFFIXES}
    problems: dict[str, str] = {}
    texts: dict[str, str] = {}
    for path in paths:
        if path.name.endswith(".trans.txt"):
            for name, text in _lines(path):
                if name in texts:
                    problems[name] = f"two transcripts (the second in {path})"
                texts[name] = text
    for name in sorted(audio.keys() | texts.keys()):
        if name in problems:
            continue
        if name not in texts:
            problems[name] = f"audio without transcript ({audio[name]})"
        elif name not in audio:
            problems[name] = "transcript without audio"
        elif not texts[name]:
            problems[name] = "empty transcript"
    good = [Claim(name, texts[name], audio[name]) for name in sorted(texts) if name not in problems]
    return good, problems


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    """(utterance id, text in upper case with single spaces) of each line of a transcript."""
    if not path.is_file():
        raise UserError(f"{path} is not a file")
    with path.open("rb") as file:
        for line in lines(file, str(path)):
            if line.strip():
                name, *words = line.split()
                yield name, " ".join(words).upper()


def _check(claim: Claim, root: Path, converted: Path) -> tuple[Utterance, str] | str:
    """Open the audio of an utterance, read its end, and convert it where needed.

    Returns:
        the utterance, and how its audio differed from 16 kHz mono; or why it can't be used.
    """
    path = claim.audio
    try:
        shape = check(path)
        change = shape.difference()
        if change and shape.samples:
            path = convert(path, converted / f"{claim.id}.flac")
            shape = check(path)
    except UserError as error:
        return str(error)
    if shape.samples < WINDOW_SAMPLES:
        return f"{shape.samples} samples of audio, less than one frame ({path})"
    audio = path.relative_to(converted if change else root).as_posix()
    if not audio.isascii() and audio.encode("utf-8", "ignore").decode() != audio:
        return f"the name of its file is not UTF-8 ({path}); rename it"
    return Utterance(claim.id, claim.text, audio, shape.samples, converted=bool(change)), change
