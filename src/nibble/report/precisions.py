"""Compares precisions: trained at each, and float weights rounded to each without training."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import NamedTuple

from nibble.percent import percent_interval, points_interval
from nibble.report.tables import (
    OLDER,
    OLDER_EXPLAINED,
    System,
    escaped,
    is_deployed,
    markdown,
    steps_differ,
    systems,
)
from nibble.runs.method import Method
from nibble.runs.records import Record

COLUMNS = ("weights", "WER % trained", "WER % not trained", "trained minus float, points", "bytes", "smaller", "RTF")
_TRAINED = [method for method in Method if method.is_trained]  # in the order of their rows
_UNTRAINED = [method for method in Method if not method.is_trained]


@dataclass(frozen=True)
class Precision:
    """One precision of one model on one part; a second way to reach it is a second row."""

    quant: str
    trained: System | None  # at this precision; float itself
    untrained: System | None  # float weights rounded without training

    @property
    def shown(self) -> System:
        """The system whose size and speed are shown for both."""
        found = self.trained or self.untrained
        assert found is not None
        return found


def precisions(records: Sequence[Record]) -> list[Precision]:
    """Each precision of one model on the same utterances, largest file first."""
    methods: dict[str, dict[Method, System]] = {}
    for system in systems(records):
        methods.setdefault(system.last.quant, {})[system.last.method] = system
    return [
        Precision(quant, *pair)
        for quant, found in methods.items()
        for pair in zip_longest(
            (found[method] for method in _TRAINED if method in found),
            (found[method] for method in _UNTRAINED if method in found),
        )
    ]


class Section(NamedTuple):
    """A table of one experiment, part and model."""

    title: str
    columns: tuple[str, ...]  # `COLUMNS`, and steps where rows had different numbers of them
    rows: list[list[str]]


def summary(records: Sequence[Record]) -> str:
    """The sections in Markdown, for the README."""
    tables = [(escaped(section.title), markdown(section.columns, section.rows)) for section in sections(records)]
    text = "\n".join(f"{title}\n\n{table}" for title, table in tables)
    return f"{text}\n{OLDER_EXPLAINED}\n" if OLDER in text else text


def sections(records: Sequence[Record]) -> list[Section]:
    """One section for each experiment, part and model; bundles and exports as such are in RESULTS.md only."""
    groups: dict[tuple[str, str, str, str], list[Record]] = {}
    for record in (record for record in records if not is_deployed(record)):
        groups.setdefault((record.experiment, record.corpus, record.part, record.model), []).append(record)
    return [_section(*key, groups[key]) for key in sorted(groups)]


def _section(experiment: str, corpus: str, part: str, model: str, records: Sequence[Record]) -> Section:
    seeds = len({record.seed for record in records})
    found = precisions(records)
    reference = next((precision.trained for precision in found if precision.quant == "float"), None)
    title = (
        f"`experiment={experiment}`: {model} ({records[-1].parameters / 1e6:.2f} million parameters) on {part} of "
        f"{corpus}, {records[-1].reference_words:,} words, {seeds} seed{'s' if seeds > 1 else ''}:"
    )
    rows = [_row(precision, reference) for precision in found]
    if not steps_differ(precision.trained for precision in found if precision.trained):
        return Section(title, COLUMNS, rows)
    steps = [precision.trained.steps if precision.trained else "" for precision in found]
    return Section(title, (*COLUMNS, "steps"), [[*row, one] for row, one in zip(rows, steps, strict=True)])


def _row(precision: Precision, reference: System | None) -> list[str]:
    trained, untrained, shown = precision.trained, precision.untrained, precision.shown
    compared = trained is not None and reference is not None and precision.quant != "float"
    older = any(system is not None and system.is_of_older_code for system in (trained, untrained))
    return [
        f"{precision.quant} {OLDER}" if older else precision.quant,
        _rate(trained),
        _rate(untrained),
        points_interval(trained.difference(reference)) if compared and trained and reference else "",
        f"{shown.last.bundle_bytes:,}",
        f"{shown.last.ratio:.2f}×",
        f"{shown.rtf:.4f}",
    ]


def _rate(system: System | None) -> str:
    """An error rate, and the method unless it is the usual one."""
    return "" if system is None else f"{percent_interval(system.wer)} {system.last.method.short}".rstrip()
