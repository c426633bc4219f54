"""A folder that is written whole or not at all, and replaces only one of its kind."""

import hashlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from nibble.errors import UserError
from nibble.writing import clear, whole_folder


@contextmanager
def written_whole(folder: Path, kind: str) -> Iterator[Path]:
    """A new folder to write into, which takes the place of `folder` at the end, and vanishes on an error.

    Raises:
        UserError: the disk is full, or writing is not allowed there. The text calls the folder a `kind`.
    """
    folder = folder.absolute()
    try:
        with whole_folder(folder) as partial:
            yield partial
    except (OSError, SafetensorError) as error:
        raise UserError(f"the {kind} {folder} cannot be written: {error}; free space or give another folder") from error


def check_replaceable(folder: Path, files: Collection[str], kind: str) -> None:
    """Raise `UserError` unless `folder` is new, empty, or holds no other files than `files`, those of `kind`."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file; give an empty or new folder")
    clear(folder)
    others = sorted({file.name for file in folder.iterdir()} - set(files)) if folder.exists() else []
    if others:
        raise UserError(
            f"{folder} holds other files than {kind}, such as {others[0]}, and would be replaced; "
            "give an empty or new folder"
        )


def folder_bytes(folder: Path) -> int:
    """Size of all files."""
    return sum(file.stat().st_size for file in folder.iterdir())


def checksum(file: Path) -> str:
    """SHA-256 of a file, in hexadecimal digits."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
