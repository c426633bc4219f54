"""RESULTS.md from results/records.jsonl: one table for each experiment and part, and where each figure comes from."""

from collections.abc import Iterable, Sequence

from nibble.report.gains import gains
from nibble.report.tables import (
    System,
    baseline,
    code,
    escaped,
    markdown,
    percent,
    points,
    short_commit,
    systems,
)
from nibble.runs.records import Record

_HEADER = (
    "model",
    "quant",
    "bits a parameter",
    "seeds",
    "WER %, 95 %",
    "minus float, points, 95 %",
    "bytes",
    "ratio",
    "RTF",
    "threads",
)
_INTRODUCTION = """\
# Results

Made from `results/records.jsonl`, `results/bench.jsonl` and, for what others have published, \
`results/published.jsonl` by `make results`; \
`python -m nibble.report --check` says whether it is up to date.

- **WER**: word errors over reference words, the mean over the seeds; in brackets the 95 % bootstrap interval over \
utterances, errors pooled over seeds. It tells how sure the figure is for such speech, not how much seeds differ: \
the figure of each seed stands below its table.
- **minus float**: WER minus that of the float run on the same utterances and seeds, with its paired 95 % interval.
- **quant**: *trained* means at this precision; *distilled* means trained with a float teacher; *not trained* means \
that the float weights were quantized afterwards.
- **bytes**: all files of the bundle. **ratio**: four bytes for each parameter of the float model, over these bytes. \
**bits a parameter**: eight times these bytes over the parameters, so everything counts.
- **RTF**: time of encoder and search over the duration of the audio, batched, features not counted.
"""


def render(records: Sequence[Record]) -> str:
    """RESULTS.md as text."""
    tables: dict[tuple[str, str, str, int], list[Record]] = {}
    for record in records:
        # Evaluations of a share of the utterances stand apart from those of all.
        key = (record.experiment, record.corpus, record.part, record.reference_words)
        tables.setdefault(key, []).append(record)
    return "\n".join([_INTRODUCTION, *(_section(*key, tables[key]) for key in sorted(tables))])


def _section(experiment: str, corpus: str, part: str, words: int, records: Sequence[Record]) -> str:
    rows = systems(records)
    utterances = len(rows[0].last.utterance_errors)
    return "\n".join(
        [
            f"## {escaped(f'{experiment}: {part} of {corpus}')}\n",
            f"{words:,} words in {utterances:,} utterances.\n",
            markdown(_HEADER, (_row(system, rows) for system in rows)),
            *([f"WER of one minus WER of the other, points:\n\n{found}"] if (found := gains(rows)) else []),
            "<details><summary>Each seed: figure, hardware, commit, command</summary>\n",
            *_origins(rows),
            "\n</details>\n",
        ]
    )


def _row(system: System, among: Sequence[System]) -> list[str]:
    last = system.last
    float_system = baseline(system, among)
    return [
        last.model,
        f"{_precision(last)} ({last.backend})",
        f"{system.bits:.2f}",
        ", ".join(map(str, system.seeds)),
        percent(system.wer),
        points(system.difference(float_system)) if float_system else "",
        f"{last.bundle_bytes:,}",
        f"{last.ratio:.2f}",
        f"{system.rtf:.4f}",
        ", ".join(sorted({str(record.threads) for record in system.records})),
    ]


def _origins(rows: Iterable[System]) -> list[str]:
    return [
        f"- {escaped(f'{record.model} {_precision(record)} ({record.backend})')}, seed {record.seed}: "
        f"{100 * record.wer:.2f} % (substitutions {record.substitutions}, deletions {record.deletions}, "
        f"insertions {record.insertions}); {_memory(record)}{escaped(record.hardware)}; "
        f"commit {short_commit(record.commit)}; configuration {escaped(record.config_hash)}; {code(record.command)}"
        for system in rows
        for record in system.records
    ]


def _memory(record: Record) -> str:
    return "" if record.peak_bytes is None else f"{record.peak_bytes / 2**20:.0f} MiB of memory at the most; "


def _precision(record: Record) -> str:
    return ", ".join(filter(None, [record.quant, record.method.label]))
