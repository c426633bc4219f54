"""Records: one JSON line per evaluation, with the result, the speech, and the command that repeats it."""

import fcntl
import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from nibble.data.options import Condition
from nibble.errors import UserError
from nibble.memory import Footprint
from nibble.plain import build, build_lines
from nibble.runs.backend import Inference
from nibble.runs.method import Method

_AT_LEAST = {  # lower bounds of counts, and of what tables divide by
    **dict.fromkeys(("parameters", "reference_words", "bundle_bytes", "float32_bytes", "threads"), 1),
    **dict.fromkeys(("wer", "substitutions", "deletions", "insertions", "ratio", "rtf", "windowed"), 0),
}
_MOST_WORDS = 2**31  # in an utterance: sums stay within 64 bits


@dataclass(frozen=True)
class Group:
    """The errors in one group of utterances."""

    name: str  # of the speaker, the language, the length ...
    utterances: int
    units: int  # words or characters of the references
    substitutions: int
    deletions: int
    insertions: int
    ci95: tuple[float, float]  # of the error rate: low, high

    @property
    def errors(self) -> int:
        """All of them."""
        return self.substitutions + self.deletions + self.insertions


@dataclass(frozen=True)
class Record:
    """One evaluation. The order of the fields is the order in the file."""

    experiment: str
    corpus: str
    part: str  # several parts are joined by "+"
    model: str
    parameters: int  # of the float transducer, without parts that exist in training only
    quant: str
    method: Method
    seed: int
    wer: float  # a fraction: 0.05 is 5 %
    substitutions: int
    deletions: int
    insertions: int
    reference_words: int
    wer_ci95: tuple[float, float]  # low, high
    utterance_errors: list[tuple[str, int, int]]  # utterance id, errors, reference words
    bundle_bytes: int  # all files of the bundle but README.md; records of older versions counted it, some 2 kB
    float32_bytes: int  # 4 x parameters
    ratio: float  # float32_bytes / bundle_bytes
    rtf: float  # time of encoder and search / duration of the audio, one process
    peak_bytes: int | None  # memory of the whole process at its most; not in the oldest records
    threads: int  # CPU threads
    backend: str  # engine, arithmetic and search, such as "native greedy": `nibble.runs.backend`
    hardware: str
    commit: str
    command: str
    config_hash: str
    units: str = "words"  # what errors are counted in; "characters" for scripts without spaces between words
    cer: float | None = None  # character error rate, if errors are counted in words
    groups: dict[str, list[Group]] = field(default_factory=dict)  # "length" and what `by=` asks for -> error rates
    # Training up to these weights, with the runs that they began from; null in records of older versions.
    steps: int | None = None
    heard_h: float | None = None  # hours of speech, each pass counted
    windowed: int = 0  # utterances longer than those of the training, which were recognised in windows
    condition: Condition = Condition.unchanged  # how the speech was changed
    # Recognising ten seconds of noise, in a process of its own on one CPU thread; null in records of older versions.
    memory: Footprint | None = None
    # Of each utterance, in the order of `utterance_errors`, a hash of the recognised text: two systems recognised the
    # same where hashes are equal. Empty in records of older versions.
    text_hashes: list[str] = field(default_factory=list)
    revision: int = 0  # `nibble.provenance.REVISION` of the code that measured; 0 in records of older versions
    # Error rates of an analog model, whose weights have other noise in each draw; the first is that of this record.
    draws: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        for name, least in _AT_LEAST.items():
            if getattr(self, name) < least:
                raise UserError(f"{name} is {getattr(self, name)}, which is less than {least}")
        for id_, errors, words in self.utterance_errors:
            if not (0 <= errors < _MOST_WORDS and 0 <= words < _MOST_WORDS):
                raise UserError(f"utterance {id_!r:.60} has {errors} errors in {words} words")
        if self.units not in ("words", "characters"):
            raise UserError(f"units is {self.units!r:.60}; errors are counted in words or characters")
        Inference.parse(self.backend)
        if self.memory is not None and min(self.memory.ran_bytes, self.memory.load_s) <= 0:
            raise UserError(f"memory says {self.memory.ran_bytes} bytes and {self.memory.load_s} s; both are above 0")

    @property
    def inference(self) -> Inference:
        """The parsed `backend`."""
        return Inference.parse(self.backend)


def append(path: Path, record: Record) -> None:
    """Add one line, unless it is there. A reader or another writer never sees half of it.

    Raises:
        UserError: the file cannot be written; it is then as it was before.
    """
    append_line(path, asdict(record), "give another file: records=FILE")


def append_line(path: Path, values: dict[str, Any], cure: str) -> None:
    """Add `values` as one line of JSON, whole or not at all; `cure` ends the message if that fails.

    Processes wait for one another, on a network drive as well. A line that is there already is not added again, and one
    whose end is missing, as an editor may leave it, is ended first.

    Raises:
        UserError: the file cannot be written; it is then as it was before.
    """
    line = (json.dumps(values, allow_nan=False) + "\n").encode()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)  # until it is closed
            held = path.read_bytes() if path.is_file() else b""
            end = b"" if not held or held.endswith(b"\n") else b"\n"
            if line in held + end:
                return
            written = os.write(file, end + line)
            if written != len(end + line):
                os.ftruncate(file, os.fstat(file).st_size - written)
                raise OSError("the disk is full")
        finally:
            os.close(file)
    except OSError as error:
        raise UserError(f"the result cannot be added to {path}: {error}; {cure}") from error


def from_plain(values: dict[str, Any]) -> Record:
    """The inverse of `dataclasses.asdict`, also of what JSON made of it.

    Raises:
        UserError: a value is missing, unknown, of another type, or cannot be.
    """
    return build(Record, values)


def read(path: Path) -> list[Record]:
    """All records of a file, oldest first.

    Raises:
        UserError: the file is absent, or a line is not a record; the text gives the line.
    """
    if not path.is_file():
        raise UserError(f"no records at {path}; python evaluate.py checkpoint=RUN adds the first")
    return build_lines(Record, path, "a record of this version", "delete that line")
