"""A part in LibriSpeech layout -> cuts, with every file checked once and the outcome kept.

PART/SPEAKER/CHAPTER/SPEAKER-CHAPTER-0000.flac     or .opus, .ogg, .wav
PART/SPEAKER/CHAPTER/SPEAKER-CHAPTER.trans.txt     "SPEAKER-CHAPTER-0000 THE WORDS" a line
"""

import hashlib
import json
import logging
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lhotse import CutSet, MonoCut, Recording, SupervisionSegment
from lhotse.audio import AudioSource

from nibble.data.audio import AUDIO_SUFFIXES, check, convert
from nibble.data.progress import track
from nibble.errors import UserError
from nibble.features import SAMPLE_RATE, WINDOW_SAMPLES

FORMAT = "1"  # of the cached manifest
SHOWN = 5  # names in a message before it says how many more

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Utterance:
    """One line of a transcript, and the audio of that name if there is any."""

    id: str
    text: str
    audio: Path | None


@dataclass(frozen=True)
class Outcome:
    """What checking an utterance found: a cut, or why there is none."""

    utterance: Utterance
    cut: MonoCut | None
    problem: str = ""
    change: str = ""  # how the audio differed from 16 kHz mono


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
    digest = hashlib.sha256(f"{FORMAT} {root.resolve()}".encode())
    for path, size_bytes, changed_ns in listing:
        digest.update(f"{path} {size_bytes} {changed_ns}\n".encode())
    manifest = cache_dir / f"{part}-{digest.hexdigest()[:16]}.jsonl.gz"
    findings = manifest.with_suffix("").with_suffix(".json")
    if not findings.is_file():
        _build([path for path, _, _ in listing], part, manifest, findings)
    found: dict[str, Any] = json.loads(findings.read_text(encoding="utf-8"))
    _report(root, found, max_bad_utterances)
    if not found["good"]:
        raise UserError(f"no utterance of {root} can be used; {_some(found['problems'])}")
    cuts = CutSet.from_jsonl_lazy(manifest)
    return CutSet.from_cuts(track(cuts, f"reading {part}", found["good"]))


def _list(root: Path) -> list[tuple[Path, int, int]]:
    """(path, size, time of change) of each transcript and audio file below `root`, sorted."""
    found = []
    for parent, _, names in os.walk(root, followlinks=True):
        for name in names:
            if name.endswith((".trans.txt", *AUDIO_SUFFIXES)):
                path = Path(parent, name)
                status = path.stat()
                found.append((path, status.st_size, status.st_mtime_ns))
    return sorted(found)


def _build(paths: list[Path], part: str, manifest: Path, findings: Path) -> None:
    """Check every utterance and write the manifest, then the findings, whose presence says both are whole."""
    utterances, problems = _pair(paths)
    converted = manifest.parent / f"{manifest.name.removesuffix('.jsonl.gz')}-converted"
    manifest.parent.mkdir(parents=True, exist_ok=True)
    changes = {}
    cuts = []
    with ThreadPoolExecutor(min(32, 2 * (os.cpu_count() or 1))) as pool:
        outcomes = pool.map(lambda utterance: _check(utterance, converted), utterances)
        for outcome in track(outcomes, f"checking {part}", len(utterances)):
            if outcome.cut is None:
                problems[outcome.utterance.id] = outcome.problem
            else:
                cuts.append(outcome.cut)
                if outcome.change:
                    changes[outcome.utterance.id] = outcome.change
    # Under another name first: two runs may begin at the same moment.
    partial = manifest.with_name(f"{os.getpid()}-{manifest.name}")
    CutSet.from_cuts(cuts).to_file(partial)
    partial.replace(manifest)
    partial = findings.with_suffix(f".{os.getpid()}.partial")
    found = {"good": len(cuts), "problems": problems, "changes": changes}
    partial.write_text(json.dumps(found, ensure_ascii=False, indent=1), encoding="utf-8")
    partial.replace(findings)


def _pair(paths: list[Path]) -> tuple[list[Utterance], dict[str, str]]:
    """Utterances with audio and text, sorted by id, and a reason for each that lacks one."""
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
        if name not in texts:
            problems[name] = f"audio without transcript ({audio[name]})"
        elif name not in audio:
            problems[name] = "transcript without audio"
        elif not texts[name]:
            problems[name] = "empty transcript"
    good = [Utterance(name, texts[name], audio[name]) for name in sorted(texts) if name not in problems]
    return good, problems


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    """(utterance id, text in upper case with single spaces) of each line of a transcript."""
    try:
        content = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text: {error}") from error
    for line in content.splitlines():
        if line.strip():
            name, *words = line.split()
            yield name, " ".join(words).upper()


def _check(utterance: Utterance, converted: Path) -> Outcome:
    """Open the audio of an utterance, read its end, and convert it where needed."""
    assert utterance.audio is not None
    path = utterance.audio
    try:
        shape = check(path)
        change = shape.difference()
        if change:
            path = convert(path, converted / f"{utterance.id}.flac")
            shape = check(path)
    except UserError as error:
        return Outcome(utterance, None, problem=str(error))
    if shape.samples < WINDOW_SAMPLES:
        return Outcome(utterance, None, problem=f"{shape.samples} samples of audio, less than one frame ({path})")
    duration_s = shape.samples / SAMPLE_RATE
    recording = Recording(
        id=utterance.id,
        sources=[AudioSource(type="file", channels=[0], source=str(path))],
        sampling_rate=SAMPLE_RATE,
        num_samples=shape.samples,
        duration=duration_s,
    )
    supervision = SupervisionSegment(
        id=utterance.id,
        recording_id=utterance.id,
        start=0.0,
        duration=duration_s,
        text=utterance.text,
        speaker=utterance.id.split("-")[0],
    )
    cut = MonoCut(
        id=utterance.id,
        start=0.0,
        duration=duration_s,
        channel=0,
        recording=recording,
        supervisions=[supervision],
    )
    return Outcome(utterance, cut, change=change)


def _report(root: Path, found: dict[str, Any], max_bad_utterances: int) -> None:
    """Say what was converted and what was left out, or stop."""
    changes, problems = found["changes"], found["problems"]
    if changes:
        log.warning("%s: %d utterances converted to 16 kHz mono: %s", root, len(changes), _some(changes))
    if len(problems) > max_bad_utterances:
        raise UserError(
            f"{root}: {len(problems)} utterances can't be used, which is more than data.max_bad_utterances="
            f"{max_bad_utterances}: {_some(problems)}. Repair them, or leave them out with "
            f"data.max_bad_utterances={len(problems)}"
        )
    if problems:
        log.warning("%s: %d utterances left out: %s", root, len(problems), _some(problems))


def _some(named: dict[str, str]) -> str:
    """The first few of `named` as "id: why", and how many more there are."""
    shown = [f"{name}: {why}" for name, why in list(named.items())[:SHOWN]]
    if len(named) > SHOWN:
        shown.append(f"and {len(named) - SHOWN} more")
    return "; ".join(shown)
