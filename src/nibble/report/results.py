"""RESULTS.md from results/records.jsonl: one table for each experiment and part, with a verdict on each precision."""

from collections.abc import Iterable, Sequence

from nibble.percent import percent_interval, points_interval
from nibble.report import lengths, robustness
from nibble.report.gains import gains
from nibble.report.groups import groups
from nibble.report.lengths import is_lengthened
from nibble.report.tables import (
    OLDER,
    PLAIN_BACKENDS,
    System,
    baseline,
    checkpoint_of,
    escaped,
    is_deployed,
    markdown,
    megabytes,
    row_name,
    systems,
    unchanged,
    verdict,
    without_repeats,
)
from nibble.runs.records import Record

_MEMORY = "MB in use"
_HEADER = ("quant", "seeds", "WER %, 95 %", "minus float, points, 95 %", "verdict", "bytes", "ratio", _MEMORY, "RTF")
_INTRODUCTION = f"""\
# Results

Made by `make results` from `results/records.jsonl`, where each seed has its own line with commit, command and \
hardware, and for what others have published from `results/published.jsonl`. `python -m nibble.report check=true` says \
whether it is up to date. Speed and size against other software: [BENCHMARKS.md](BENCHMARKS.md).

- **WER**: word errors over reference words, the mean over the seeds; in brackets the 95 % bootstrap interval over \
utterances, errors pooled over seeds. It tells how sure the figure is for such speech, not how much seeds differ.
- **minus float**: WER minus that of the float run on the same utterances and seeds, with its paired 95 % interval. \
**verdict**: *worse* or *better* if that interval excludes zero, else *same*: not measurably different.
- **quant**: *trained* means at this precision; *distilled* means trained with a float teacher; *not trained* means \
that the float weights were quantized afterwards. The search is in brackets, unless greedy.
- **bytes**: all files of the bundle or export. **ratio**: four bytes for each parameter of the float model, over them.
- **MB in use**: memory of a process that holds the model and recognises ten seconds at a time on one CPU thread, over \
that of Python and its packages.
- **flips**: utterances whose text differs from that of the checkpoint, over all seeds. \
**{OLDER}**: measured before the last change of the code that changes results.
- **RTF**: time of encoder and search over the duration of the audio, batched; only with sherpa-onnx are features \
included.
"""


def render(records: Sequence[Record]) -> str:
    """RESULTS.md as text."""
    tables: dict[tuple[str, str, str, int], list[Record]] = {}
    for record in unchanged(records):
        if is_lengthened(record):
            continue
        # Evaluations of some of the utterances have a table apart from those of all.
        key = (record.experiment, record.corpus, record.part, record.reference_words)
        tables.setdefault(key, []).append(record)
    sections = [_INTRODUCTION, *(_section(*key, tables[key]) for key in sorted(tables))]
    return "\n".join(filter(None, [*sections, lengths.render(unchanged(records)), robustness.render(records)]))


def _section(experiment: str, corpus: str, part: str, words: int, records: Sequence[Record]) -> str:
    every = systems(records)
    rows = [system for system in every if not is_deployed(system.last)]
    utterances = len(every[0].last.utterance_errors)
    return "\n".join(
        [
            f"## {escaped(f'{experiment}: {part} of {corpus}')}\n",
            f"{words:,} words in {utterances:,} utterances.\n",
            *([_table(rows)] if rows else []),
            *([f"WER of one minus WER of the other, points:\n\n{found}"] if (found := gains(rows)) else []),
            *([f"As deployed:\n\n{found}"] if (found := deployed(every)) else []),
            *([found] if (found := groups(rows)) else []),
        ]
    )


def _table(rows: Sequence[System]) -> str:
    """A row for each checkpoint, or float checkpoint that was rounded."""
    header = list(_HEADER)
    lines = _named(rows, [_row(system, rows) for system in rows], header)
    if all(system.memory_bytes is None for system in rows):
        column = header.index(_MEMORY)
        header, *lines = ([*line[:column], *line[column + 1 :]] for line in (header, *lines))
    return markdown(header, lines)


def deployed(every: Sequence[System]) -> str:
    """A row for each bundle and export, in Markdown; empty if none was measured.

    Args:
        every: of one experiment and part, the checkpoints among them.
    """
    groups_ = _alike(system for system in every if is_deployed(system.last))
    if not groups_:
        return ""
    header = ["quant", "engine", "seeds", "WER %, 95 %", "flips", "bytes", "ratio", _MEMORY, "RTF"]
    lines = _named([alike[0] for alike in groups_], [_deployed_row(alike, every) for alike in groups_], header)
    for name in ("flips", _MEMORY):
        column = header.index(name)
        if not any(line[column] for line in lines):
            header, *lines = ([*line[:column], *line[column + 1 :]] for line in (header, *lines))
    return markdown(header, lines)


def _named(rows: Sequence[System], lines: list[list[str]], header: list[str]) -> list[list[str]]:
    """The lines; where there are several models, with a column for them, which `header` gets too."""
    if len({system.last.model for system in rows}) < 2:
        return lines
    header.insert(0, "model")
    return without_repeats([[system.last.model, *line] for system, line in zip(rows, lines, strict=True)])


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


def _row(system: System, among: Sequence[System]) -> list[str]:
    float_system = baseline(system, among)
    difference = system.difference(float_system) if float_system else None
    backend = system.last.backend
    return [
        row_name(system, among) + ("" if backend in PLAIN_BACKENDS else f" ({backend})"),
        str(len(system.seeds)),
        percent_interval(system.wer),
        points_interval(difference),
        verdict(difference),
        f"{system.last.bundle_bytes:,}",
        f"{system.last.ratio:.2f}",
        megabytes(system.memory_bytes),
        f"{system.rtf:.4f}",
    ]


def _deployed_row(alike: Sequence[System], every: Sequence[System]) -> list[str]:
    first = alike[0]
    checkpoint = checkpoint_of(first, every)
    flips = first.flips(checkpoint) if checkpoint else None
    return [
        row_name(first, [one for one in every if is_deployed(one.last)]),
        _engines(alike),
        str(len(first.seeds)),
        percent_interval(first.wer),
        "" if flips is None else str(flips),
        f"{first.last.bundle_bytes:,}",
        f"{first.last.ratio:.2f}",
        _memory(alike),
        ", ".join(f"{system.rtf:.4f}" for system in alike),
    ]


def _memory(alike: Sequence[System]) -> str:
    """Of each engine; empty if none was measured."""
    found = [megabytes(system.memory_bytes) for system in alike]
    return ", ".join(one or "?" for one in found) if any(found) else ""


def _engines(alike: Sequence[System]) -> str:
    """The engines, such as "onnx, sherpa 2.0.1 w4a8"; the search unless it is greedy."""
    names = [f"{one.last.inference.backend.value} {one.last.inference.version}".strip() for one in alike[:-1]]
    return ", ".join([*names, alike[-1].last.backend.removesuffix(" greedy")])
