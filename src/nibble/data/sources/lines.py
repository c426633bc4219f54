"""Lines of text from files that may hold anything."""

from collections.abc import Iterator
from gzip import GzipFile
from typing import BinaryIO

from nibble.errors import UserError

MAX_LINE_BYTES = 2**24


def lines(file: BinaryIO | GzipFile, name: str) -> Iterator[str]:
    """The lines of a file, without their ends; none is longer than `MAX_LINE_BYTES`.

    Raises:
        UserError: a line is longer, or is not UTF-8; the text has its number.
    """
    number = 0
    while line := file.readline(MAX_LINE_BYTES + 1):
        number += 1
        if len(line) > MAX_LINE_BYTES:
            raise UserError(f"{name}, line {number} is longer than {MAX_LINE_BYTES:,} bytes")
        try:
            yield line.decode().rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise UserError(f"{name}, line {number} is not UTF-8 text: {error}") from error
