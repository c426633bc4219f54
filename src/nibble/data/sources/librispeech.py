"""The utterances of a part of a corpus: what checking it found, kept in a file so that a part is checked once.

The file is ours, but it may have been cut off, or have come with a corpus from elsewhere. So nothing in it can name a
command, an address or a file outside of the part: of an utterance it has id, text, length and the place of its audio.
"""

import gzip
import json
import logging
import zlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath

from lhotse import CutSet, MonoCut, Recording, SupervisionSegment
from lhotse.audio import AudioSource

from nibble.data.sources.lines import lines
from nibble.errors import UserError, printable
from nibble.features.kaldi import SAMPLE_RATE, WINDOW_SAMPLES
from nibble.plain import build, parse
from nibble.progress import track
from nibble.writing import whole_file

SHOWN = 5  # names in a message before it says how many more

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Utterance:
    """Speech that was checked: 16 kHz, one channel, samples that are numbers."""

    id: str
    text: str
    audio: str  # relative to the folder of the part, or with `converted` to that of converted audio
    samples: int
    converted: bool = False

    def __post_init__(self) -> None:
        path = PurePosixPath(self.audio)
        if path.is_absolute() or ".." in path.parts or "\0" in self.audio:
            raise UserError(f"{_short(self.audio)} is no file of the part")
        if self.samples < WINDOW_SAMPLES or not self.text:
            raise UserError(f"{_short(self.id)} has {self.samples} samples and the text {_short(self.text)}")


@dataclass(frozen=True)
class Findings:
    """What checking a part found."""

    good: list[Utterance] = field(default_factory=list)
    problems: dict[str, str] = field(default_factory=dict)  # utterance id -> why it can't be used
    changes: dict[str, str] = field(default_factory=dict)  # utterance id -> how its audio differed from 16 kHz mono


@dataclass(frozen=True)
class _Head:
    """The first line of the file."""

    good: int
    problems: dict[str, str]
    changes: dict[str, str]


def kept(file: Path, title: str, check: Callable[[], Findings], there: Callable[[Utterance], bool]) -> Findings:
    """What `file` holds or, if it isn't there or isn't whole, what `check` finds; that is then kept there.

    Args:
        file: a path that changes with the part.
        title: of the part, for progress.
        check: checks the part.
        there: whether the audio of an utterance is there.
    """
    if file.is_file():
        try:
            found = _read(file, title)
            absent = next((one for one in found.good if not there(one)), None)
            if absent is None:
                return found
            raise UserError(f"it names {_short(absent.audio)}, which is not there")
        except (UserError, EOFError, zlib.error, OSError) as error:
            log.warning("%s is not whole (%s); the part is checked again", printable(file), printable(error))
    found = check()
    _write(file, found)
    return found


def cuts(found: Findings, folder: Path, converted: Path) -> CutSet:
    """The good utterances as cuts of files in `folder` or, where their audio had to be, in `converted`."""
    return CutSet.from_cuts(_cut(one, str((converted if one.converted else folder) / one.audio)) for one in found.good)


def report(root: Path, found: Findings, max_bad_utterances: int) -> None:
    """Say what was converted and what was left out, or stop.

    Raises:
        UserError: more was left out than allowed, or nothing is left.
    """
    changes, problems, where = found.changes, found.problems, printable(root)
    if changes:
        log.warning("%s: %d utterances converted to 16 kHz mono: %s", where, len(changes), _some(changes))
    if len(problems) > max_bad_utterances:
        raise UserError(
            f"{where}: {len(problems)} utterances can't be used, which is more than data.max_bad_utterances="
            f"{max_bad_utterances}: {_some(problems)}. Repair them, or leave them out with "
            f"data.max_bad_utterances={len(problems)}"
        )
    if problems:
        log.warning("%s: %d utterances left out: %s", where, len(problems), _some(problems))
    if not found.good:
        raise UserError(f"no utterance of {where} can be used; {_some(problems)}")


def _read(file: Path, title: str) -> Findings:
    with gzip.open(file) as opened:
        rows = lines(opened, str(file))
        head = build(_Head, parse(next(rows, "")))
        good = [build(Utterance, parse(row)) for row in track(rows, f"reading {title}", head.good)]
    if len(good) != head.good or len({one.id for one in good}) != len(good):
        raise UserError(f"it has {len(good)} utterances of {head.good}")
    return Findings(good, head.problems, head.changes)


def _write(file: Path, found: Findings) -> None:
    head = _Head(len(found.good), _printable(found.problems), _printable(found.changes))
    with whole_file(file) as path, gzip.open(path, "wt", encoding="ascii", compresslevel=1) as opened:
        for row in _rows(head, found.good):
            opened.write(json.dumps(row) + "\n")


def _rows(head: _Head, good: list[Utterance]) -> Iterator[dict[str, object]]:
    yield asdict(head)
    yield from map(asdict, good)


def _printable(named: dict[str, str]) -> dict[str, str]:
    return {printable(name): printable(what) for name, what in named.items()}


def _cut(utterance: Utterance, audio: str) -> MonoCut:
    duration_s = utterance.samples / SAMPLE_RATE
    recording = Recording(
        id=utterance.id,
        sources=[AudioSource(type="file", channels=[0], source=audio)],
        sampling_rate=SAMPLE_RATE,
        num_samples=utterance.samples,
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
    return MonoCut(
        id=utterance.id,
        start=0.0,
        duration=duration_s,
        channel=0,
        recording=recording,
        supervisions=[supervision],
    )


def _some(named: dict[str, str]) -> str:
    """The first few of `named` as "id: why", and how many more there are."""
    shown = [f"{_short(name)}: {_short(why, 300)}" for name, why in list(named.items())[:SHOWN]]
    if len(named) > SHOWN:
        shown.append(f"and {len(named) - SHOWN} more")
    return "; ".join(shown)


def _short(text: str, most: int = 60) -> str:
    text = printable(text)
    return text if len(text) <= most else f"{text[:most]}…"
