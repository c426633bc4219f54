"""Results that others published, from results/published.jsonl, for a section of RESULTS.md marked as theirs."""

from dataclasses import astuple, dataclass, fields
from pathlib import Path

from nibble.plain import build_lines
from nibble.report.tables import markdown

_TITLE = """\
## Published by others, not measured here

As their abstracts and model cards say, each on its own speech, with its own model and its own way to count bytes: \
what low precision has been found to cost elsewhere, not a comparison with the tables above.
"""


@dataclass(frozen=True)
class Published:
    """A result as its source states it. The order of the fields is that of the columns."""

    system: str
    weights: str
    speech: str
    errors: str
    size: str
    source: str


def read(path: Path) -> list[Published]:
    """All results of a file, in its order; none if there is no file.

    Raises:
        UserError: a line is not such a result; the text gives the line.
    """
    return build_lines(Published, path, "a published result", "mend that line")


def render(published: list[Published]) -> str:
    """A section of RESULTS.md; empty without results."""
    if not published:
        return ""
    columns = [field.name for field in fields(Published)]
    return f"{_TITLE}\n{markdown(columns, (list(astuple(one)) for one in published))}"
