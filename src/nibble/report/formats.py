"""Writes a comparison as a table in Markdown, CSV, JSON or LaTeX."""

import csv
import io
import json
from enum import StrEnum
from typing import Any

from nibble.percent import percent_interval, points_interval
from nibble.report.comparison import Comparison, Row
from nibble.report.tables import escaped, markdown, megabytes
from nibble.terminal import Table


class Format(StrEnum):
    """The format of a written comparison."""

    html = "html"  # the page
    md = "md"
    csv = "csv"
    json = "json"
    latex = "latex"  # needs booktabs


HEADER = ("weights", "how", "seeds", "WER %, 95 %", "minus float, points, 95 %", "bytes", "smaller", "MB in use", "RTF")
_SPECIAL = {character: f"\\{character}" for character in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "−": "$-$",
    "…": r"\ldots{}",
    "×": r"$\times$",
}


def written(comparison: Comparison, format_: Format) -> str:
    """The table as text that ends with a newline.

    Markdown and LaTeX are for people; CSV and JSON have every number in full, rates in percent.
    """
    if format_ is Format.md:
        return f"{escaped(str(comparison.speech))}:\n\n" + markdown(
            HEADER, (cells(comparison, row) for row in comparison.rows)
        )
    if format_ is Format.latex:
        return _latex(comparison)
    rows = [values(row) for row in comparison.rows]
    if format_ is Format.json:
        speech = comparison.speech._asdict()
        return json.dumps({"speech": speech, "systems": rows}, indent=1, allow_nan=False) + "\n"
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({**row, "seeds": " ".join(map(str, row["seeds"]))} for row in rows)
    return text.getvalue()


def table(comparison: Comparison) -> Table:
    """For a terminal."""
    rows = [cells(comparison, row) for row in comparison.rows]
    return Table(HEADER, rows, left=2, title=str(comparison.speech))


def cells(comparison: Comparison, row: Row) -> list[str]:
    """The cells of a row for people, in the order of the header."""
    return [
        comparison.weights(row),
        comparison.how(row),
        ", ".join(map(str, row.system.seeds)),
        percent_interval(row.wer),
        points_interval(row.difference),
        f"{row.last.bundle_bytes:,}",
        f"{row.last.ratio:.2f}×",
        megabytes(row.system.memory_bytes),
        f"{row.system.rtf:.4f}",
    ]


def values(row: Row) -> dict[str, Any]:
    """Every number of a row under a name with its unit; None where there is nothing to compare with."""
    last = row.last
    wer, low, high = (100 * rate for rate in row.wer)
    minus = [100 * rate for rate in row.difference] if row.difference else [None] * 3
    return {
        "experiment": last.experiment,
        "model": last.model,
        "quant": last.quant,
        "method": last.method,
        "options": row.options,
        "backend": last.backend,
        "seeds": row.system.seeds,
        "wer_percent": wer,
        "wer_low_percent": low,
        "wer_high_percent": high,
        "minus_float_points": minus[0],
        "minus_float_low_points": minus[1],
        "minus_float_high_points": minus[2],
        "steps": last.steps,
        "hours_heard": last.heard_h,
        "parameters": last.parameters,
        "bundle_bytes": last.bundle_bytes,
        "bits_per_parameter": row.system.bits,
        "times_smaller": last.ratio,
        "memory_bytes": row.system.memory_bytes,
        "rtf": row.system.rtf,
        "threads": last.threads,
        "hardware": last.hardware,
    }


def _latex(comparison: Comparison) -> str:
    lines = [
        f"% {comparison.speech}; needs \\usepackage{{booktabs}}",
        f"\\begin{{tabular}}{{ll{'r' * (len(HEADER) - 2)}}}",
        r"\toprule",
        " & ".join(map(_escaped, HEADER)) + r" \\",
        r"\midrule",
        *(" & ".join(map(_escaped, cells(comparison, row))) + r" \\" for row in comparison.rows),
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    return "".join(_SPECIAL.get(character, character) for character in text)
