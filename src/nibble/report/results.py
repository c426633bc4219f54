"""RESULTS.md from results/records.jsonl: one table for each experiment and part, with a verdict on each precision."""

from collections.abc import Iterable, Sequence

from nibble.percent import percent_interval, points_interval
from nibble.report import robustness
from nibble.report.gains import gains
from nibble.report.groups import groups
from nibble.report.tables import (
    PLAIN_BACKENDS,
    System,
    baseline,
    escaped,
    markdown,
    megabytes,
    steps_differ,
    systems,
    unchanged,
    verdict,
    without_repeats,
)
from nibble.runs.records import Record

_MEMORY = "MB in use"
_HEADER = ("quant", "seeds", "WER %, 95 %", "minus float, points, 95 %", "verdict", "bytes", "ratio", _MEMORY, "RTF")
_INTRODUCTION = """\
# Results

Made by `make results` from `results/records.jsonl`, where each seed has its own line with commit, command and \
hardware, from `results/bench.jsonl` and, for what others have published, from `results/published.jsonl`. \
`python -m nibble.report check=true` says whether it is up to date.

- **WER**: word errors over reference words, the mean over the seeds; in brackets the 95 % bootstrap interval over \
utterances, errors pooled over seeds. It tells how sure the figure is for such speech, not how much seeds differ.
- **minus float**: WER minus that of the float run on the same utterances and seeds, with its paired 95 % interval. \
**verdict**: *worse* or *better* if that interval excludes zero, else *same*: not measurably different.
- **quant**: *trained* means at this precision; *distilled* means trained with a float teacher; *not trained* means \
that the float weights were quantized afterwards. The engine and search are in brackets, unless torch with greedy \
search.
- **bytes**: all files of the bundle or export. **ratio**: four bytes for each parameter of the float model, over them.
- **MB in use**: memory of a process that holds the model and recognises ten seconds at a time on one CPU thread, over \
that of Python and its packages.
- **RTF**: time of encoder and search over the duration of the audio, batched; only with sherpa-onnx are features \
included.
"""


def render(records: Sequence[Record]) -> str:
    """RESULTS.md as text."""
    tables: dict[tuple[str, str, str, int], list[Record]] = {}
    for record in unchanged(records):
        # Evaluations of some of the utterances have a table apart from those of all.
        key = (record.experiment, record.corpus, record.part, record.reference_words)
        tables.setdefault(key, []).append(record)
    sections = [_INTRODUCTION, *(_section(*key, tables[key]) for key in sorted(tables))]
    return "\n".join(filter(None, [*sections, robustness.render(records)]))


def _section(experiment: str, corpus: str, part: str, words: int, records: Sequence[Record]) -> str:
    rows = systems(records)
    utterances = len(rows[0].last.utterance_errors)
    return "\n".join(
        [
            f"## {escaped(f'{experiment}: {part} of {corpus}')}\n",
            f"{words:,} words in {utterances:,} utterances.\n",
            _table(rows),
            *([f"WER of one minus WER of the other, points:\n\n{found}"] if (found := gains(rows)) else []),
            *([found] if (found := groups(rows)) else []),
        ]
    )


def _table(rows: Sequence[System]) -> str:
    """A row for each system. Where there are several models, the first row of each has its name."""
    models = {system.last.model for system in rows}
    header = [*(["model"] if len(models) > 1 else []), *_HEADER]
    lines = [_row(alike, rows) for alike in _alike(rows)]
    if len(models) > 1:
        named = [[alike[0].last.model, *line] for alike, line in zip(_alike(rows), lines, strict=True)]
        lines = without_repeats(named)
    if all(system.memory_bytes is None for system in rows):
        column = header.index(_MEMORY)
        header, *lines = ([*line[:column], *line[column + 1 :]] for line in (header, *lines))
    return markdown(header, lines)


def _alike(rows: Iterable[System]) -> list[list[System]]:
    """Group systems that differ only in their engine, such as one export in several versions of sherpa-onnx."""
    found: dict[tuple[object, ...], list[System]] = {}
    for system in rows:
        last = system.last
        how = (last.inference.arithmetic, last.inference.search)
        errors = [record.utterance_errors for record in system.records]
        key = (last.model, last.quant, last.method, how, last.bundle_bytes, str(errors), str(system.seeds))
        found.setdefault(key, []).append(system)
    return list(found.values())


def _row(alike: Sequence[System], among: Sequence[System]) -> list[str]:
    first = alike[0]
    float_system = baseline(first, among)
    difference = first.difference(float_system) if float_system else None
    return [
        f"{_precision(first.last)}{_backends(alike)}{f', {first.steps} steps' if steps_differ(among) else ''}",
        str(len(first.seeds)),
        percent_interval(first.wer),
        points_interval(difference),
        verdict(difference),
        f"{first.last.bundle_bytes:,}",
        f"{first.last.ratio:.2f}",
        _memory(alike),
        ", ".join(f"{system.rtf:.4f}" for system in alike),
    ]


def _memory(alike: Sequence[System]) -> str:
    """Of each engine; empty if none was measured."""
    found = [megabytes(system.memory_bytes) for system in alike]
    return ", ".join(one or "?" for one in found) if any(found) else ""


def _backends(alike: Sequence[System]) -> str:
    """The engines, such as " (onnx, sherpa 2.0.1 w4a8 greedy)"; empty for the default engine."""
    names = [f"{one.last.inference.backend.value} {one.last.inference.version}".strip() for one in alike[:-1]]
    said = ", ".join([*names, alike[-1].last.backend])
    return "" if said in PLAIN_BACKENDS else f" ({said})"


def _precision(record: Record) -> str:
    return ", ".join(filter(None, [record.quant, record.method.label]))
