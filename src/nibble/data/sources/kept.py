"""Keeps the result of checking a part of a corpus in a file, so that each part is checked once.

The file is ours, but it may have been cut off, or have come with a corpus from elsewhere. So nothing in it can name a
command or an address, or, if the source lists its audio, any other file. For an utterance it has id, text,
length, labels and the place of its audio. Every line is compared with that when the file is opened. After that, a line
is read again whenever its cut is asked for, so that the utterances of a part take 16 bytes each in memory.

The lines are utterances, [id, text, place of the audio, whether it was converted, samples, labels], and a `_Tail`.
"""

import json
import os
from array import array
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from lhotse import MonoCut, Recording, SupervisionSegment
from lhotse.audio import AudioSource

from nibble.conventions import SAMPLE_RATE_HZ
from nibble.data.cuts import Cuts
from nibble.data.options import TextCase
from nibble.data.sources.paths import is_plain
from nibble.data.sources.source import Problem
from nibble.data.text import in_case, is_unicode
from nibble.errors import UserError, printable
from nibble.features.kaldi import WINDOW_SAMPLES
from nibble.plain import build, parse
from nibble.progress import track
from nibble.writing import whole_file

_DETAIL = 2_000  # characters kept of a detail
EXAMPLES = 20  # of each kind that are kept
_KINDS = (str, str, str, bool, int, dict)
_MAX_SAMPLES = 2**40
_FIELDS = ("speaker", "language", "gender")  # labels that Lhotse has a field for


class Utterance(NamedTuple):
    """A checked utterance: 16 kHz, one channel, finite samples."""

    id: str
    text: str  # normalised, in the case of the corpus
    audio: str  # a file, `member` or `stretch`, in the root of the source unless its path is absolute
    converted: bool  # then it is in the folder of converted audio
    samples: int
    labels: dict[str, str]


@dataclass
class Tally:
    """How often something was found, with the first examples."""

    count: int = 0
    examples: list[tuple[str, str]] = field(default_factory=list)  # utterance id, detail

    def add(self, id_: str, detail: str) -> None:
        """Count one more."""
        self.count += 1
        if len(self.examples) < EXAMPLES:
            self.examples.append((printable(id_), _both_ends(printable(detail), _DETAIL)))


@dataclass
class Findings:
    """The problems and remarks that checking a part found, by kind."""

    problems: dict[str, Tally] = field(default_factory=dict)  # why an utterance can't be used
    notes: dict[str, Tally] = field(default_factory=dict)  # what is unusual about one that can

    def add_problem(self, problem: Problem) -> None:
        """Count an utterance that can't be used."""
        self.problems.setdefault(problem.kind, Tally()).add(problem.id, problem.detail)

    def add_note(self, id_: str, kind: str, detail: str) -> None:
        """Count an utterance that is unusual."""
        self.notes.setdefault(kind, Tally()).add(id_, detail)


@dataclass(frozen=True)
class _Tail:
    """The last line of the file."""

    utterances: int
    audio: str  # fingerprint of the audio files, if the source does not list them
    found: Findings


class Kept:
    """The utterances of a part, in the file that `write` made.

    Args:
        file: the file.
        offsets: (N + 1,) of the lines.
        samples: (N,) of the utterances.
        found: beside the utterances.
    """

    def __init__(self, file: Path, offsets: "array[int]", samples: "array[int]", found: Findings) -> None:
        self.file = file
        self.found = found
        self._offsets = offsets
        self._samples = samples
        self._opened = os.open(file, os.O_RDONLY)

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, number: int) -> Utterance:
        start, end = self._offsets[number], self._offsets[number + 1]
        return _utterance(os.pread(self._opened, end - start, start), f"{self.file}, line {number + 1}")

    def __del__(self) -> None:
        if hasattr(self, "_opened"):
            os.close(self._opened)

    def cuts(self, folder: Path, converted: Path, case: TextCase) -> Cuts:
        """The utterances as cuts of audio in `folder` or, where their audio had to be, in `converted`."""

        roots = str(folder), str(converted)

        def make(number: int) -> MonoCut:
            utterance = self[number]
            return _cut(utterance, _joined(roots[utterance.converted], utterance.audio), case)

        durations_s = np.frombuffer(self._samples, dtype=np.int64) / SAMPLE_RATE_HZ
        return Cuts(make, durations_s, lambda number: in_case(self[number].text, case))


def write(file: Path, utterances: Iterable[Utterance], found: Findings, audio: Callable[[], str]) -> None:
    """Keep what was found in `file`; the findings and `audio` are asked for when the utterances have ended."""
    with whole_file(file) as path, path.open("w", encoding="ascii") as opened:
        count = 0
        for count, utterance in enumerate(utterances, start=1):  # noqa: B007
            opened.write(json.dumps(utterance) + "\n")
        opened.write(json.dumps(asdict(_Tail(count, audio(), found))) + "\n")


def read(file: Path, title: str, there: Callable[[Utterance], bool], audio: Callable[[], str]) -> Kept:
    """Read the file that `write` made.

    Args:
        file: the file.
        title: of the part, for progress.
        there: whether the audio of an utterance is where it was; asked for each of them.
        audio: as in `write`; asked after the last utterance.

    Raises:
        UserError: it isn't whole, is of another version, or audio has changed.
        OSError: it can't be read.
    """
    offsets, samples = array("q", [0]), array("q")
    with file.open("rb") as opened:
        tail = _tail(opened.seek(0, os.SEEK_END), file)
        opened.seek(0)
        for _ in track(range(tail.utterances), f"reading {title}", tail.utterances):
            line = opened.readline()
            utterance = _utterance(line, f"line {len(offsets)}")
            if not there(utterance):
                raise UserError(f"it names {_short(utterance.audio)}, which is not there")
            offsets.append(offsets[-1] + len(line))
            samples.append(utterance.samples)
        if len(opened.readlines(2)) != 1:
            raise UserError(f"it has other lines than its {tail.utterances} utterances")
    if audio() != tail.audio:
        raise UserError("the audio files have changed")
    return Kept(file, offsets, samples, tail.found)


def _tail(size_bytes: int, file: Path) -> _Tail:
    """The last line of a file, which may be long."""
    with file.open("rb") as opened:
        length = 1024
        while True:
            length = min(2 * length, size_bytes)
            opened.seek(size_bytes - length)
            end = opened.read(length)
            start = end.rstrip(b"\n").rfind(b"\n")
            if start >= 0 or length == size_bytes:
                if not end.endswith(b"\n"):
                    raise UserError("its last line is cut off")
                return build(_Tail, parse(end[start + 1 :]))


def _utterance(line: bytes, where: str) -> Utterance:
    """One line of the file; much quicker than `nibble.plain`, since there may be ten million."""
    try:
        row: Any = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where} is not JSON: {error}") from error
    if not isinstance(row, list) or tuple(map(type, row)) != _KINDS:
        raise UserError(f"{where} is not an utterance")
    utterance = Utterance(*row)
    labels = utterance.labels
    if not all(isinstance(value, str) for value in labels.values()):
        raise UserError(f"{where}: the labels are not texts")
    if not WINDOW_SAMPLES <= utterance.samples < _MAX_SAMPLES or not utterance.text or "\0" in utterance.audio:
        raise UserError(f"{where}: {_short(utterance.id)} has {utterance.samples} samples and {_short(utterance.text)}")
    if not all(map(is_unicode, (utterance.id, utterance.text, utterance.audio, *labels, *labels.values()))):
        raise UserError(f"{where} holds half of a character")
    return utterance


def _cut(utterance: Utterance, audio: str, case: TextCase) -> MonoCut:
    duration_s = utterance.samples / SAMPLE_RATE_HZ
    recording = Recording(
        id=utterance.id,
        sources=[AudioSource(type="file", channels=[0], source=audio)],
        sampling_rate=SAMPLE_RATE_HZ,
        num_samples=utterance.samples,
        duration=duration_s,
    )
    supervision = SupervisionSegment(
        id=utterance.id,
        recording_id=utterance.id,
        start=0.0,
        duration=duration_s,
        text=in_case(utterance.text, case),
        **{name: utterance.labels.get(name) for name in _FIELDS},
        custom={name: value for name, value in utterance.labels.items() if name not in _FIELDS} or None,
    )
    return MonoCut(
        id=utterance.id,
        start=0.0,
        duration=duration_s,
        channel=0,
        recording=recording,
        supervisions=[supervision],
    )


def _joined(folder: str, audio: str) -> str:
    """As `str(Path(folder) / audio)`, in a tenth of its time where it changes nothing else."""
    if not is_plain(audio) or folder in ("", ".") or folder.endswith("/"):
        return str(Path(folder) / audio)
    return audio if audio[0] == "/" else f"{folder}/{audio}"


def _short(text: str, most: int = 60) -> str:
    text = printable(text)
    return text if len(text) <= most else f"{text[:most]}…"


def _both_ends(text: str, most: int) -> str:
    """`text`, shortened in the middle: a message begins with what is wrong, and ends with what to type."""
    return text if len(text) <= most else f"{text[: most // 2]}…{text[-(most // 2) :]}"
