"""Error rates of joined utterances, deletions apart: quantized recognisers fail on long speech first, by deletions."""

import re
from collections.abc import Iterable, Sequence

from nibble.percent import points_interval
from nibble.report.tables import System, baseline, escaped, is_deployed, markdown, row_name, systems
from nibble.runs.records import Record

_CORPUS = re.compile(r"(.+)-long")  # `nibble.data.corpora.lengthened`
_PART = re.compile(r"test-(\d+)s")
_INTRODUCTION = """\
Utterances of a speaker joined to this many seconds; the words are the same in each column. WER %, of which deletions \
in brackets. What is longer than the speech of training is recognised in windows.
"""


def is_lengthened(record: Record) -> bool:
    """Whether joined utterances were recognised, whose rates have a table of their own."""
    return bool(_CORPUS.fullmatch(record.corpus) and _PART.fullmatch(record.part))


def render(records: Sequence[Record]) -> str:
    """A section for each experiment that was evaluated on joined utterances; empty if none was."""
    tasks: dict[tuple[str, str], list[Record]] = {}
    for record in filter(is_lengthened, records):
        tasks.setdefault((record.experiment, record.corpus), []).append(record)
    return "\n".join(_section(*task, tasks[task], records) for task in sorted(tasks))


def _section(experiment: str, corpus: str, joined: Sequence[Record], records: Sequence[Record]) -> str:
    parts = sorted({record.part for record in joined}, key=_seconds)
    words = {record.reference_words for record in joined}
    plain = [
        record
        for record in records
        if (record.experiment, f"{record.corpus}-long") == (experiment, corpus)
        and record.reference_words in words
        and not is_deployed(record)
    ]
    columns = {"as they are": _by_name(plain)} if plain else {}
    columns |= {f"{_seconds(part)} s": _by_name(one for one in joined if one.part == part) for part in parts}
    last = columns[f"{_seconds(parts[-1])} s"]
    lines = []
    for name, system in last.items():
        of = baseline(system, list(last.values()))
        cells = [_rate(found.get(name)) for found in columns.values()]
        lines.append([name, *cells, points_interval(system.difference(of) if of else None)])
    header = ["quant", *columns, f"minus float at {_seconds(parts[-1])} s, points, 95 %"]
    title = escaped(f"Long utterances: {experiment}, {corpus}")
    return f"## {title}\n\n{_INTRODUCTION}\n{markdown(header, lines, left=1)}"


def _seconds(part: str) -> int:
    found = _PART.fullmatch(part)
    assert found is not None
    return int(found[1])


def _by_name(records: Iterable[Record]) -> dict[str, System]:
    found = systems(records)
    return {row_name(system, found): system for system in found}


def _rate(system: System | None) -> str:
    if system is None:
        return ""
    deleted = sum(record.deletions for record in system.records) / sum(one.reference_words for one in system.records)
    return f"{100 * system.wer[0]:.2f} ({100 * deleted:.2f})"
