"""One JSON line per evaluation: what was measured, on what, and how to measure it again."""

import fcntl
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from nibble.errors import UserError


@dataclass(frozen=True)
class Record:
    """One evaluation. The order of the fields is the order in the file."""

    experiment: str
    corpus: str
    part: str  # several parts are joined by "+"
    model: str
    parameters: int  # of the float transducer, without parts that exist in training only
    quant: str
    # float; not trained at this precision: ptq (rounded), gptq (rounded with GPTQ);
    # trained at it: qat, distilled (with a teacher), shared (one run for several precisions)
    method: str
    seed: int
    wer: float  # a fraction: 0.05 is 5 %
    substitutions: int
    deletions: int
    insertions: int
    reference_words: int
    wer_ci95: tuple[float, float]  # low, high
    utterance_errors: list[tuple[str, int, int]]  # utterance id, errors, reference words
    bundle_bytes: int  # all files of the bundle
    float32_bytes: int  # 4 x parameters
    ratio: float  # float32_bytes / bundle_bytes
    rtf: float  # time of encoder and search / duration of the audio, one process
    peak_bytes: int | None  # memory of the whole process at its most; not in the oldest records
    threads: int  # CPU threads
    backend: str  # arithmetic and search, such as "native greedy"
    hardware: str
    commit: str
    command: str
    config_hash: str

    @property
    def trained(self) -> bool:
        """Whether the weights were trained at this precision; else they are a float run's."""
        return self.method not in ("ptq", "gptq")


def append(path: Path, record: Record) -> None:
    """Add one line, unless it is there. A reader or another writer never sees half of it.

    Raises:
        UserError: the file cannot be written; it is then as it was before.
    """
    append_line(path, asdict(record), "give another file: records=FILE")


def append_line(path: Path, values: dict[str, Any], cure: str) -> None:
    """Add `values` as one line of JSON, whole or not at all; `cure` ends the message if that fails.

    Processes wait for one another, on a network drive as well. A line that is there already is not added again.

    Raises:
        UserError: the file cannot be written; it is then as it was before.
    """
    line = (json.dumps(values, allow_nan=False) + "\n").encode()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)  # until it is closed
            if path.is_file() and line in path.read_bytes():
                return
            written = os.write(file, line)
            if written != len(line):
                os.ftruncate(file, os.fstat(file).st_size - written)
                raise OSError("the disk is full")
        finally:
            os.close(file)
    except OSError as error:
        raise UserError(f"the result cannot be added to {path}: {error}; {cure}") from error


def from_plain(values: dict[str, Any]) -> Record:
    """The inverse of `dataclasses.asdict`, also of what JSON made of it; `values` has all fields and no others."""
    pairs = [tuple(utterance) for utterance in values["utterance_errors"]]
    return Record(**{**values, "wer_ci95": tuple(values["wer_ci95"]), "utterance_errors": pairs})


def read(path: Path) -> list[Record]:
    """All records of a file, oldest first.

    Raises:
        UserError: the file is absent, or a line is not a record; the text gives the line.
    """
    if not path.is_file():
        raise UserError(f"no records at {path}; python evaluate.py checkpoint=RUN adds the first")
    return list(_records(path))


def _records(path: Path) -> Iterator[Record]:
    names = [field.name for field in fields(Record)]
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            values = json.loads(line)
        except json.JSONDecodeError as error:
            raise UserError(f"{path}, line {number} is not JSON: {error}; delete that line") from error
        if not isinstance(values, dict) or set(values) != set(names):
            wrong = sorted(set(values) ^ set(names)) if isinstance(values, dict) else [type(values).__name__]
            raise UserError(f"{path}, line {number} is not a record of this version; it differs in {', '.join(wrong)}")
        yield from_plain(values)
