"""Writes folders of one kind, such as bundles: whole or not at all, replacing only folders of that kind."""

import hashlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from nibble.errors import UserError
from nibble.writing import clear, explained, whole_folder


@contextmanager
def replacing(folder: Path, files: Collection[str], kind: str) -> Iterator[Path]:
    """A new folder to write into, which takes the place of `folder` at the end, and vanishes on an error.

    Args:
        folder: absent, empty, or one of the same kind, which is replaced.
        files: the names of all files that one of this kind may have.
        kind: for messages, such as "a bundle".

    Raises:
        UserError: the folder holds something else, the disk is full, or writing is not allowed there.
    """
    check_replaceable(folder, files, kind)
    with explained(folder, "give another folder"), whole_folder(folder) as partial:
        yield partial


def check_replaceable(folder: Path, files: Collection[str], kind: str) -> None:
    """Raise `UserError` unless `folder` is absent, empty, or holds no other files than `files`, those of `kind`."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file; give an empty or new folder")
    clear(folder)
    others = sorted({file.name for file in folder.iterdir()} - set(files)) if folder.exists() else []
    if others:
        raise UserError(
            f"{folder} holds other files than {kind}, such as {others[0]}, and would be replaced; "
            "give an empty or new folder"
        )


def checksum(file: Path) -> str:
    """SHA-256 of a file, in hexadecimal digits."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
