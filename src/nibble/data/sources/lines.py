"""Reads lines of text from files that may contain anything."""

import codecs
import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from nibble.errors import UserError

MAX_LINE_BYTES = 2**24


def lines(file: BinaryIO | gzip.GzipFile, name: str) -> Iterator[str]:
    """The lines of a file, without their ends and without a byte order mark; none is longer than `MAX_LINE_BYTES`.

    Bytes that are not UTF-8 become halves of characters (`surrogateescape`), which `nibble.data.text.is_unicode` finds:
    one such line is one bad utterance, and not the end of the file.

    Raises:
        UserError: a line is longer, or the file is UTF-16; the text says which line.
    """
    number = 0
    while line := file.readline(MAX_LINE_BYTES + 1):
        number += 1
        if len(line) > MAX_LINE_BYTES:
            raise UserError(f"{name}, line {number} is longer than {MAX_LINE_BYTES:,} bytes")
        if number == 1 and line.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            raise UserError(f"{name} is UTF-16; convert it: iconv -f UTF-16 -t UTF-8 {name} > NEW")
        yield line.removeprefix(codecs.BOM_UTF8).decode(errors="surrogateescape").rstrip("\r\n")


@contextmanager
def opened_text(path: Path) -> Iterator[BinaryIO]:
    """A text file, unpacked if its name ends in .gz.

    Raises:
        UserError: it can't be opened, or is damaged.
    """
    try:
        if not path.is_file():
            raise UserError(f"{path} is not a file")
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            yield cast(BinaryIO, file)
    except (OSError, EOFError, zlib.error) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise UserError(f"{path} cannot be read, or is cut off: {why}") from error


def numbered_lines(path: Path) -> Iterator[tuple[int, str]]:
    """(number from 1 on, line) of each line of a text file that isn't blank.

    Raises:
        UserError: as `opened_text` and `lines`.
    """
    with opened_text(path) as file:
        for number, line in enumerate(lines(file, str(path)), start=1):
            if line.strip():
                yield number, line
