"""Turns records into the rows of a table: the runs of one system, one per seed, are averaged."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from nibble.data.options import Condition
from nibble.evaluation.options import Backend
from nibble.evaluation.wer import interval, paired_interval
from nibble.provenance import REVISION
from nibble.runs.method import Method
from nibble.runs.records import Record

PLAIN_BACKENDS = ("native greedy", "float greedy")  # torch's, which tables don't name
OLDER = "†"  # marks what code before the last change of results has measured
OLDER_EXPLAINED = f"{OLDER}: measured before the last change of the code that changes results."


@dataclass(frozen=True)
class System:
    """The latest record of each seed of one model at one precision, on the same speech, in the order of seeds."""

    records: tuple[Record, ...]

    @property
    def last(self) -> Record:
        """The record of the largest seed, for values that are the same for all seeds."""
        return self.records[-1]

    @property
    def wer(self) -> tuple[float, float, float]:
        """Mean over seeds, and its 95 % interval over utterances: (wer, low, high)."""
        return interval([record.utterance_errors for record in self.records])

    @property
    def rtf(self) -> float:
        """Mean over seeds."""
        return sum(record.rtf for record in self.records) / len(self.records)

    @property
    def memory_bytes(self) -> float | None:
        """In use while recognising, the mean over the seeds that say so; None if none does, as older records."""
        found = [record.memory.ran_bytes for record in self.records if record.memory is not None]
        return sum(found) / len(found) if found else None

    @property
    def bits(self) -> float:
        """Bits per parameter, all files of the bundle included."""
        return 8 * self.last.bundle_bytes / self.last.parameters

    @property
    def seeds(self) -> list[int]:
        """Seeds measured."""
        return [record.seed for record in self.records]

    @property
    def steps(self) -> str:
        """Training steps of its runs, for a table."""
        found = {record.steps for record in self.records}
        return " or ".join("not recorded" if steps is None else f"{steps:,}" for steps in sorted(found, key=str))

    @property
    def is_of_older_code(self) -> bool:
        """Whether a record is of code before the last change of results."""
        return any(record.revision < REVISION for record in self.records)

    def flips(self, other: "System") -> int | None:
        """Utterances whose recognised text differs from that of `other`, summed over the seeds that both have.

        None if they have no seed in common, or records that don't say it.
        """
        others = {record.seed: record for record in other.records}
        pairs = [(_texts(record), _texts(others[record.seed])) for record in self.records if record.seed in others]
        if not pairs or any(not ours or ours.keys() != theirs.keys() for ours, theirs in pairs):
            return None
        return sum(ours[id_] != theirs[id_] for ours, theirs in pairs for id_ in ours)

    def is_phase_of_run_of(self, other: "System") -> bool:
        """Whether both were trained in one run, one after the other."""
        trained = self.last.method.is_trained and other.last.method.is_trained
        return trained and self.last.config_hash == other.last.config_hash

    def difference(self, other: "System") -> tuple[float, float, float] | None:
        """WER of this minus WER of `other` on the same utterances, over the seeds both have: (value, low, high).

        None if they have no seed in common, were not measured on the same utterances, or are phases of one run (then
        they have one configuration, and the later one has trained longer).
        """
        if self.is_phase_of_run_of(other):
            return None
        common = set(self.seeds) & set(other.seeds)
        pairs = [
            [record.utterance_errors for record in system.records if record.seed in common] for system in (self, other)
        ]
        if not common:
            return None
        try:
            return paired_interval(*pairs)
        except ValueError:
            return None


def _texts(record: Record) -> dict[str, str]:
    """Utterance -> hash of its recognised text; empty unless the record has one for each."""
    if len(record.text_hashes) != len(record.utterance_errors):
        return {}
    return {one[0]: text for one, text in zip(record.utterance_errors, record.text_hashes, strict=True)}


def systems(records: Iterable[Record]) -> list[System]:
    """One system for each model, precision, method and way of computing; largest file first.

    If a system has several records with the same seed, the last one counts.
    """
    groups: dict[tuple[str, ...], dict[int, Record]] = {}
    for record in records:
        key = (record.model, record.quant, record.method, record.backend)
        groups.setdefault(key, {})[record.seed] = record
    found = [System(tuple(seeds[seed] for seed in sorted(seeds))) for seeds in groups.values()]
    return sorted(found, key=order)


def unchanged(records: Iterable[Record]) -> list[Record]:
    """The records of unchanged speech; changed speech has a table of its own."""
    return [record for record in records if record.condition is Condition.unchanged]


def steps_differ(among: Iterable[System]) -> bool:
    """Whether systems had different amounts of training, so that a table of them must say how much."""
    return len({system.steps for system in among}) > 1


def checkpoint_of(system: System, among: Iterable[System]) -> System | None:
    """The checkpoint that a deployed system was written from, as torch computes it; None for a checkpoint itself."""
    last = system.last
    if not is_deployed(last):
        return None
    wanted = (last.model, last.quant, last.method, last.inference.search)
    return next(
        (
            other
            for other in among
            if not is_deployed(other.last)
            and (other.last.model, other.last.quant, other.last.method, other.last.inference.search) == wanted
        ),
        None,
    )


def is_deployed(record: Record) -> bool:
    """Whether a bundle or an export was measured as such, and not the checkpoint."""
    return record.inference.backend is not Backend.torch


def row_name(system: System, among: Iterable[System]) -> str:
    """Precision and method, with the steps if those of other rows differ, and a mark if older code measured it."""
    steps = f"{system.steps} steps" if steps_differ(among) else ""
    said = ", ".join(filter(None, [system.last.quant, system.last.method.label, steps]))
    return f"{said} {OLDER}" if system.is_of_older_code else said


def baseline(system: System, among: Sequence[System]) -> System | None:
    """The float system that `system` is compared with: same model, engine and search; None for float itself."""
    if system.last.method is Method.float:
        return None
    wanted = _compared_by(system.last)
    return next(
        (other for other in among if other.last.method is Method.float and _compared_by(other.last) == wanted), None
    )


def megabytes(size_bytes: float | None) -> str:
    """146,800,000 -> 147; empty for None."""
    return "" if size_bytes is None else f"{size_bytes / 1e6:.0f}"


def verdict(rates: tuple[float, float, float] | None) -> str:
    """Whether the interval of a difference to float excludes zero: worse, better or same; empty for None."""
    if rates is None:
        return ""
    _, low, high = rates
    return "worse" if low > 0 else "better" if high < 0 else "same"


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]], left: int = 2) -> str:
    """A Markdown table, the first `left` columns to the left, the others to the right."""
    lines = [header, [*["---"] * left, *["---:"] * (len(header) - left)], *rows]
    return "".join("| " + " | ".join(escaped(cell).replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def without_repeats(lines: Sequence[Sequence[str]]) -> list[list[str]]:
    """Lines whose first cell is empty where it would repeat that of the line above."""
    above = [None, *(line[0] for line in lines)]
    return [["" if line[0] == first else line[0], *line[1:]] for line, first in zip(lines, above, strict=False)]


def escaped(text: str) -> str:
    """Escape text for Markdown: one line, no HTML."""
    return " ".join(text.replace("&", "&amp;").replace("<", "&lt;").splitlines())


def code(text: str) -> str:
    """Text as Markdown code in one line, between more backticks than it contains."""
    longest = max(map(len, re.findall("`+", text)), default=0)
    fence, space = "`" * (longest + 1), " " if longest else ""
    return f"{fence}{space}{' '.join(text.splitlines())}{space}{fence}"


def order(system: System) -> tuple[str, int, str, str]:
    """The sort key of rows: by model, the largest file first."""
    last = system.last
    return last.model, -last.bundle_bytes, last.method, last.backend


def engine(record: Record) -> Backend:
    """torch, onnx or sherpa; torch on a bundle counts as torch."""
    found = record.inference.backend
    return found if found.reads_export else Backend.torch


def _compared_by(record: Record) -> tuple[str, Backend, str]:
    """The fields in which a system must agree with the float system that it is compared with."""
    return record.model, engine(record), record.inference.search
