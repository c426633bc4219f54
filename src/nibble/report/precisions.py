"""Precisions side by side: trained at each, and the float weights rounded to it without training."""

from collections.abc import Sequence

from nibble.evaluation.records import Record
from nibble.report.tables import System, markdown, percent, points, systems

COLUMNS = (
    "weights",
    "WER % trained, 95 %",
    "WER % not trained, 95 %",
    "trained minus float, points",
    "bytes",
    "smaller",
    "RTF",
)


def rows(records: Sequence[Record]) -> list[list[str]]:
    """One row a precision, as text in the order of `COLUMNS`; records are of one model on the same utterances."""
    methods: dict[str, dict[str, System]] = {}
    for system in systems(records):
        methods.setdefault(system.last.quant, {})[system.last.method] = system
    reference = methods.get("float", {}).get("float")
    return [_row(name, found, reference) for name, found in methods.items()]


def summary(records: Sequence[Record]) -> str:
    """A Markdown table of `rows` for each experiment and part, for the README."""
    groups: dict[tuple[str, str, str, str], list[Record]] = {}
    for record in records:
        groups.setdefault((record.experiment, record.corpus, record.part, record.model), []).append(record)
    return "\n".join(_section(*key, groups[key]) for key in sorted(groups))


def _section(experiment: str, corpus: str, part: str, model: str, records: Sequence[Record]) -> str:
    seeds = len({record.seed for record in records})
    title = (
        f"`experiment={experiment}`: {model} ({records[-1].parameters / 1e6:.2f} million parameters) on {part} of "
        f"{corpus}, {records[-1].reference_words:,} words, {seeds} seed{'s' if seeds > 1 else ''}:\n"
    )
    return f"{title}\n{markdown(COLUMNS, rows(records))}"


def _row(name: str, methods: dict[str, System], reference: System | None) -> list[str]:
    trained = methods.get("qat") or methods.get("float")
    shown = trained or methods["ptq"]
    difference = trained.difference(reference) if trained and reference and name != "float" else None
    return [
        name,
        percent(trained.wer) if trained else "",
        percent(methods["ptq"].wer) if "ptq" in methods else "",
        points(difference),
        f"{shown.last.bundle_bytes:,}",
        f"{shown.last.ratio:.2f}×",
        f"{shown.rtf:.4f}",
    ]
