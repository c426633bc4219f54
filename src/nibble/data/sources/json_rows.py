"""Reads files with a JSON dictionary in each line."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nibble.data.sources.lines import numbered_lines
from nibble.data.sources.source import Problem
from nibble.data.text import is_unicode
from nibble.errors import UserError
from nibble.plain import parse

NOT_JSON, NOT_UTF8 = "a line that is not JSON", "text that is not UTF-8"
ICONV = "convert the file: iconv -f LATIN1 -t UTF-8 FILE > NEW"


def json_rows(path: Path) -> Iterator[tuple[str, dict[str, Any] | Problem]]:
    """Each line of a file: its place for messages, and its fields or what is wrong with it.

    Raises:
        UserError: as `numbered_lines`.
    """
    for number, line in numbered_lines(path):
        place = f"line {number} of {path.name}"
        if not is_unicode(line):
            yield place, Problem(place, NOT_UTF8, ICONV)
            continue
        try:
            row = parse(line)
        except UserError as error:
            yield place, Problem(place, NOT_JSON, str(error))
            continue
        if isinstance(row, dict):
            yield place, row
        else:
            yield place, Problem(place, NOT_JSON, f"{row!r:.40} is not a dictionary of fields")
