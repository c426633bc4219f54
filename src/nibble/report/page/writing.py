"""Writes the contents as one HTML file that needs no network and no other file."""

from collections.abc import Sequence
from importlib.resources import files
from typing import NamedTuple

import vl_convert
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from nibble import __version__, provenance
from nibble.percent import percent, percent_interval, points_interval
from nibble.report.comparison import Comparison, Row
from nibble.report.page.charts import specifications
from nibble.report.page.contents import Contents
from nibble.report.published import Published, points
from nibble.runs.method import Method

_ASSETS = files("nibble.report.page") / "assets"
_DECADES = 8.0  # ratio of error rates above which a linear scale would hide the smaller ones
_COLUMNS = (  # name, whether its cells are numbers
    ("weights", False),
    ("how", False),
    ("WER %, 95 %", True),
    ("minus float, points", True),
    ("bytes", True),
    ("smaller", True),
    ("MB in use", True),
    ("RTF", True),
    ("steps", True),
    ("seeds", False),
)


class Tile(NamedTuple):
    """A headline figure."""

    name: str
    figure: str
    note: str


def render(
    comparison: Comparison, contents: Contents, notes: Sequence[str] = (), published: Sequence[Published] = ()
) -> str:
    """The page as text. All names and transcripts are escaped.

    Args:
        comparison: the rows of the table.
        contents: of its runs.
        notes: sentences below the table.
        published: results of others, shown beside ours on the same speech.
    """
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "allow_nan": False}
    template = environment.from_string(_asset("page.html"))
    rows, runs = comparison.rows, comparison.runs
    errors = [100 * row.wer[0] for row in rows]
    return template.render(
        title=", ".join(sorted({row.last.experiment for row in rows})),
        about=f"{comparison.speech}, {len(runs)} run{'s' if len(runs) > 1 else ''}",
        tiles=tiles(rows),
        columns=_COLUMNS,
        contents=contents,
        notes=notes,
        speed=_speed(rows),
        has_memory=any(row["memory"] is not None for row in contents.rows),
        data={
            "rows": contents.rows,
            "published": points(published, comparison.speech.corpus, comparison.speech.part),
            "first": _first(comparison),
            "runs": contents.runs,
            "damage": contents.damage,
            "charts": specifications(
                decades=max(errors) > _DECADES * max(min(errors), 0.1),
                one_run=any(row["one_run"] for row in contents.rows),
            ),
        },
        footer=f"Written by nibble {__version__}: {provenance.command()}",
        style=Markup(_asset("page.css")),
        script=Markup(_asset("page.js")),
        library=Markup(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")),
    )


def tiles(rows: Sequence[Row]) -> list[Tile]:
    """Headline figures: float, and the smallest trained system that is not measurably worse."""
    full = next((row for row in rows if row.last.method is Method.float), None)
    small = _smallest_close(rows)
    if full is None or small is None:
        return []
    return [
        Tile("WER in float", percent(full.wer[0]), f"{percent_interval(full.wer)}, {full.last.bundle_bytes:,} bytes"),
        Tile(
            f"smallest trained that is not measurably worse: {small.last.quant}",
            percent(small.wer[0]),
            f"minus float {points_interval(small.difference)} points",
        ),
        Tile("its size", f"{small.last.bundle_bytes:,} bytes", f"{small.last.ratio:.2f}× smaller than float32"),
    ]


def _first(comparison: Comparison) -> int:
    """The run to show first: one of the smallest trained system."""
    trained = [row for row in comparison.rows if row.last.method.is_trained]
    row = _smallest_close(comparison.rows) or min(trained or comparison.rows, key=lambda row: row.last.bundle_bytes)
    return [run.name for run in comparison.runs].index(row.runs[0].name)


def _smallest_close(rows: Sequence[Row]) -> Row | None:
    """The smallest trained system that is not measurably worse than float."""
    trained = [row for row in rows if row.last.method.is_trained]
    close = [row for row in trained if row.difference is not None and row.difference[1] <= 0]
    return min(close, key=lambda row: row.last.bundle_bytes, default=None)


def _speed(rows: Sequence[Row]) -> str:
    """The machine and threads that times were measured with."""
    places = {(record.threads, record.hardware) for row in rows for record in row.system.records}
    if len(places) > 1:
        return "Taken on several machines or numbers of threads: compare with care."
    ((threads, hardware),) = places
    return f"Taken with {threads} CPU thread{'s' if threads > 1 else ''} on {hardware}, features not counted."


def _asset(name: str) -> str:
    return (_ASSETS / name).read_text(encoding="utf-8")
