"""Prints on a terminal: texts from files safely, and tables that fit its width.

Lines break between words alone, and nothing is cut. Columns of a table that do not fit stand on a second line of their
row; `COLUMNS=200` in the environment says that there is more space.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import Any

import rich.console
from rich.cells import cell_len
from rich.console import ConsoleOptions, RenderResult
from rich.text import Text

from nibble.errors import printable

Cell = str | Text  # a Text may have a style
_GAP = "  "  # between columns
_INDENT = "    "  # of the lines of a row after its first


class Console(rich.console.Console):
    """A console for names and texts from files: square brackets and colons in them are no markup.

    Escape sequences in a string do not reach the terminal. Style goes into a `Text`.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **options)

    def print(self, *objects: Any, **options: Any) -> None:
        """As rich's; a string or `Text` is broken between words unless `soft_wrap` leaves it to the terminal."""
        if not all(isinstance(one, str | Text | Table) for one in objects):
            super().print(*objects, **options)  # of rich's own, such as a progress bar
            return
        shown = [Text(printable(one)) if isinstance(one, str) else one for one in objects]
        if not options.get("soft_wrap"):
            shown = [Text("\n").join(_wrapped(one, self.width)) if isinstance(one, Text) else one for one in shown]
        super().print(*shown, **{"no_wrap": True, "overflow": "ignore", "crop": False, **options})


@dataclass(frozen=True)
class Table:
    """A table for a `Console`. Columns keep their order; a cell that is wider than the console is broken into lines."""

    header: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    left: int = 1  # how many columns, from the first on, are aligned to the left; the others hold numbers
    title: str = ""
    note: str = ""  # below it

    def __rich_console__(self, _: rich.console.Console, options: ConsoleOptions) -> RenderResult:
        """Title, header, rows and note, line by line."""
        width = options.max_width
        yield from _wrapped(_text(self.title, "bold"), width)
        rows = [[_text(one, "bold") for one in self.header], *([_text(one) for one in row] for row in self.rows)]
        widths = [max(cell.cell_len for cell in column) for column in zip(*rows, strict=True)]
        lines = _lines(widths, self.left, width)
        for number, row in enumerate(rows):
            for columns in lines:
                yield from self._line(row, widths, columns, width)
            if number == 0:
                yield Text("─" * min(width, max(_needed(widths, columns) for columns in lines)), "dim")
        yield from _wrapped(_text(self.note, "italic"), width)

    def _line(self, row: Sequence[Text], widths: Sequence[int], columns: range, width: int) -> Iterator[Text]:
        """Some columns of a row, in one line; in several if it is a single one, wider than the console."""
        indent = _INDENT if columns[0] else ""
        if _needed(widths, columns) > width:
            (column,) = columns
            yield from (Text.assemble(indent, part) for part in _wrapped(row[column], width - len(indent)))
            return
        cells = []
        for column in columns:
            space = " " * (widths[column] - row[column].cell_len)
            cells.append(Text.assemble(*((row[column], space) if column < self.left else (space, row[column]))))
        line = Text.assemble(indent, Text(_GAP).join(cells))
        line.rstrip()
        if line:
            yield line


def _lines(widths: Sequence[int], left: int, width: int) -> list[range]:
    """The columns of each line of a row: as few lines as can be, text before numbers, all about equally long."""
    for count in range(len(widths)):
        found = []
        for breaks in combinations(range(1, len(widths)), count):
            lines = [range(first, last) for first, last in pairwise((0, *breaks, len(widths)))]
            if all(len(columns) == 1 or _needed(widths, columns) <= width for columns in lines):
                uneven = sum(min(width, _needed(widths, columns)) ** 2 for columns in lines)
                found.append((left not in breaks, uneven, lines))
        if found:
            return min(found, key=lambda one: one[:2])[2]
    return []


def _needed(widths: Sequence[int], columns: range) -> int:
    """How wide a line of these columns is."""
    indent = len(_INDENT) if columns[0] else 0
    return indent + sum(widths[column] for column in columns) + len(_GAP) * (len(columns) - 1)


def _text(value: Cell, style: str = "") -> Text:
    """In one line."""
    return value if isinstance(value, Text) else Text(" ".join(printable(value).split()), style)


def _wrapped(text: Text, width: int) -> Iterator[Text]:
    """Lines of at most `width`, broken between words; a word that is wider stays whole. None of an empty text."""
    for paragraph in text.split("\n", allow_blank=True) if text else ():
        breaks, used = [], 0
        for word in re.finditer(r"\s*\S+\s*", paragraph.plain):
            if used and used + cell_len(word[0].rstrip()) > width:
                breaks.append(word.start())
                used = 0
            used += cell_len(word[0])
        for line in paragraph.divide(breaks):
            line.rstrip()
            yield line
