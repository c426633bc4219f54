"""The rows of one table: systems measured on the same speech, each with its runs."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from nibble.data.options import NoiseKind
from nibble.errors import UserError
from nibble.report.differing_options import Options, described, differing, options_of
from nibble.report.matching import Measurement
from nibble.report.runs import Run
from nibble.report.tables import System, baseline, order, steps_differ
from nibble.runs.method import Method
from nibble.runs.records import Record


class Speech(NamedTuple):
    """What was recognised."""

    corpus: str
    part: str
    words: int
    noise: str  # empty without noise

    def __str__(self) -> str:
        return f"{self.part} of {self.corpus}, {self.words:,} words{', ' if self.noise else ''}{self.noise}"


@dataclass(frozen=True)
class Row:
    """A system, its runs, and the options by which it differs from others with the same name."""

    system: System
    runs: tuple[Run, ...]  # one for each of the system's records
    options: str  # such as "optimizer.learning_rate=0.001"; empty if no other system has its name
    against: System | None  # float

    @property
    def last(self) -> Record:
        """The record of the largest seed, for values that are the same for all seeds."""
        return self.system.last

    @property
    def in_one_run(self) -> bool:
        """Whether its run has several systems: sizes, or precisions that were trained together."""
        return self.last.method is Method.shared or any(run.sizes for run in self.runs)

    @property
    def method(self) -> str:
        """How the weights were quantized: trained, rounded and so on; empty for float."""
        return self.last.method.label

    @cached_property
    def wer(self) -> tuple[float, float, float]:
        """Mean over seeds and its 95 % interval: (wer, low, high)."""
        return self.system.wer

    @cached_property
    def difference(self) -> tuple[float, float, float] | None:
        """WER minus that of float on the same utterances and seeds: (value, low, high)."""
        return self.system.difference(self.against) if self.against else None


@dataclass(frozen=True)
class Comparison:
    """One table."""

    speech: Speech
    rows: list[Row]

    @property
    def runs(self) -> list[Run]:
        """Every run in the table, by name."""
        found = {run.name: run for row in self.rows for run in row.runs}
        return [found[name] for name in sorted(found)]

    def weights(self, row: Row) -> str:
        """The precision of a row's weights, after its experiment and model where rows differ in them."""
        every = [other.last for other in self.rows]
        experiments, models = {one.experiment for one in every}, {one.model for one in every}
        names = [row.last.experiment] * (len(experiments) > 1) + [row.last.model] * (len(models) > 1)
        return " ".join([*names, row.last.quant])

    def own(self, run: Run) -> Record | None:
        """The record of a run's last precision, or else of any precision that it was trained at."""
        trained = [
            record
            for row in self.rows
            for of, record in zip(row.runs, row.system.records, strict=True)
            if of.name == run.name and record.method.is_trained
        ]
        return next((one for one in trained if one.quant == run.config.quant.name), trained[-1] if trained else None)

    def how(self, row: Row) -> str:
        """How the weights were quantized, and what else distinguishes this row, such as its number of steps."""
        alike = [other for other in self.rows if self._same_but_engine(row, other)]
        steps = f"{row.system.steps} steps" if steps_differ(other.system for other in self.rows) else ""
        engine = row.last.backend if len(alike) > 1 else ""
        older = "older code" if row.system.is_of_older_code else ""
        return ", ".join(filter(None, [row.method, row.options, engine, steps, older]))

    def _same_but_engine(self, row: Row, other: Row) -> bool:
        return (self.weights(row), row.method, row.options) == (self.weights(other), other.method, other.options)


def compare(measured: Sequence[Measurement], part: str | None = None) -> Comparison:
    """The rows of measurements on the same speech: experiments by name, in each the largest file first.

    Args:
        measured: of any runs.
        part: as in records; leaves out measurements on others.

    Raises:
        UserError: nothing was measured on `part`, or there is more than one kind of speech.
    """
    heard: dict[Speech, list[Measurement]] = {}
    for one in measured:
        heard.setdefault(_speech(one), []).append(one)
    chosen = {speech: ones for speech, ones in heard.items() if part in (None, speech.part)}
    listed = "; ".join(f"{speech} ({_count(ones)})" for speech, ones in heard.items())
    if not chosen:
        raise UserError(f"nothing was measured on part {part}; there is: {listed}")
    if len(chosen) > 1:
        parts = {speech.part for speech in chosen}
        cure = f"choose with part={min(parts)}, or give" if len(parts) > 1 else "give"
        raise UserError(
            f"one table compares recognisers of the same speech, and these runs were measured on several: {listed}; "
            f"{cure} runs of one kind only"
        )
    ((speech, ones),) = chosen.items()
    return Comparison(speech, list(_rows(ones)))


class _Group(NamedTuple):
    """The measurements of one system, one for each seed."""

    system: System
    runs: tuple[Run, ...]
    options: Options

    @property
    def name(self) -> tuple[str, ...]:
        last = self.system.last
        return last.experiment, last.model, last.quant, last.method, last.backend


def _rows(measured: Sequence[Measurement]) -> Iterator[Row]:
    groups = _groups(measured)
    for group in sorted(groups, key=lambda group: (group.name[0], *order(group.system))):
        options = [other.options for other in groups if other.name == group.name]
        yield Row(group.system, group.runs, described(group.options, differing(options)), _float(group, groups))


def _float(group: _Group, groups: Sequence[_Group]) -> System | None:
    """The float system of the same experiment whose options differ least from this one."""
    others = [other for other in groups if other.name[0] == group.name[0]]
    nearest = sorted(others, key=lambda other: len(differing([other.options, group.options])))
    return baseline(group.system, [other.system for other in nearest])


def _groups(measured: Sequence[Measurement]) -> list[_Group]:
    """Group measurements that differ only in their seed; for each seed the last one counts."""
    options = {name: options_of(run) for name, run in {one.run.name: one.run for one in measured}.items()}
    groups: dict[tuple[str, ...], dict[int, Measurement]] = {}
    for run, record in measured:
        key = (record.experiment, record.model, record.quant, record.method, record.backend, str(options[run.name]))
        groups.setdefault(key, {})[record.seed] = Measurement(run, record)
    ordered = [[seeds[seed] for seed in sorted(seeds)] for seeds in groups.values()]
    return [
        _Group(System(tuple(one.record for one in ones)), tuple(one.run for one in ones), options[ones[-1].run.name])
        for ones in ordered
    ]


def _speech(one: Measurement) -> Speech:
    noise = one.run.config.data.noise
    behind = "" if noise.kind is NoiseKind.none else f"{noise.kind.value} at {noise.dev_snr_db:g} dB"
    return Speech(one.record.corpus, one.record.part, one.record.reference_words, behind)


def _count(measured: Sequence[Measurement]) -> str:
    runs = len({one.run.name for one in measured})
    return f"{runs} run{'s' if runs > 1 else ''}"
