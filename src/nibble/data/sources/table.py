"""A TSV or CSV file with a header: Common Voice as it is unpacked, and tables of one's own.

path            sentence
clips/1.mp3     Guten Tag.

Columns go by the names of `nibble.data.sources.manifest`; `data.columns=` renames them. Paths begin at the folder of
the table or in a folder `clips` beside it, where Common Voice has them.
"""

import csv
from collections.abc import Iterator
from dataclasses import replace

from nibble.data.sources.lines import lines, opened_text
from nibble.data.sources.manifest import Rows, claim_of, require
from nibble.data.sources.source import Claim, Problem
from nibble.errors import UserError

_SEPARATORS = "\t,;|"
_MAX_FIELD = 2**24


class Table(Rows):
    """Reads a table with a header."""

    def claims(self) -> Iterator[Claim | Problem]:
        """The rows in their order.

        Raises:
            UserError: there is no header, or no column for audio or text.
        """
        csv.field_size_limit(_MAX_FIELD)
        with opened_text(self.path) as file:
            rows = self._rows(f"{line}\n" for line in lines(file, str(self.path)))
            header = next(rows, None)
            if header is None:
                raise UserError(f"{self.path} is empty; its first line is to name the columns")
            require(header, self.names, str(self.path))
            clips = self.root / "clips"
            beside = clips.is_dir()
            for number, row in enumerate(rows, start=2):
                place = f"row {number} of {self.path.name}"
                if len(row) != len(header):
                    if any(row):
                        yield Problem(place, "a row of another length", f"{len(row)} of {len(header)} columns")
                    continue
                claim = claim_of(dict(zip(header, row, strict=True)), self.names, place)
                if isinstance(claim, Claim) and beside and "/" not in claim.audio:
                    claim = replace(claim, audio=f"clips/{claim.audio}")
                yield claim

    def _rows(self, text: Iterator[str]) -> Iterator[list[str]]:
        """The rows; quotes in a TSV are characters like others, in a CSV they hold cells together."""
        first = next(text, None)
        if first is None:
            return
        separator = max(_SEPARATORS, key=first.count)
        every = _chained(first, text)
        try:
            if separator == "\t":
                yield from csv.reader(every, delimiter=separator, quoting=csv.QUOTE_NONE)
            else:
                yield from csv.reader(every, delimiter=separator)
        except csv.Error as error:
            raise UserError(f"{self.path} is not a table with {separator!r} between columns: {error}") from error


def _chained(first: str, others: Iterator[str]) -> Iterator[str]:
    yield first
    yield from others
