"""Files of an ESPnet package: a zip archive, read where they lie, or a folder into which one was unpacked."""

import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from shutil import copyfileobj
from typing import BinaryIO, cast

from nibble.errors import UserError

_MOST_MEMBERS = 1_000
_LARGEST_TEXT_BYTES = 64 * 2**20  # of a configuration or a tokenizer
_MOST_EXPANSION = 20  # of an archive; float weights shrink by a tenth


class Package:
    """An open package.

    Args:
        path: of the archive or folder.
        archive: None for a folder.
    """

    def __init__(self, path: Path, archive: zipfile.ZipFile | None) -> None:
        self.path = path
        self._archive = archive
        self._members = set() if archive is None else set(archive.namelist())

    def __contains__(self, name: str) -> bool:
        """Whether there is a file of that name inside."""
        parts = PurePosixPath(name)
        if parts.is_absolute() or ".." in parts.parts or "\0" in name:
            return False
        try:
            return name in self._members if self._archive is not None else (self.path / name).is_file()
        except OSError:  # a name that is too long
            return False

    def named(self, ending: str) -> list[str]:
        """The files at the top of a folder whose names end so."""
        return [] if self._archive is not None else sorted(file.name for file in self.path.glob(f"*{ending}"))

    def bytes_of(self, name: str) -> bytes:
        """A small file.

        Raises:
            UserError: it is absent, too large or damaged.
        """
        with self.opened(name) as file:
            content = file.read(_LARGEST_TEXT_BYTES + 1)
        if len(content) > _LARGEST_TEXT_BYTES:
            raise UserError(f"{self.path}: {name} has more than {_LARGEST_TEXT_BYTES:,} bytes, and was not read")
        return content

    @contextmanager
    def opened(self, name: str) -> Iterator[BinaryIO]:
        """A file that can be read from any place; a member of an archive is copied to a temporary file first.

        Raises:
            UserError: it is absent or damaged.
        """
        if name not in self:
            raise UserError(f"{self.path} has no {name[:200]} inside; give the whole package")
        if self._archive is None:
            with (self.path / name).open("rb") as file:
                yield cast(BinaryIO, file)
            return
        with tempfile.TemporaryFile() as copy:
            try:
                with self._archive.open(name) as source:
                    copyfileobj(source, copy)
            except Exception as error:  # zipfile and what it decompresses with raise of every kind
                raise _damaged(self.path, error) from error
            copy.seek(0)
            yield cast(BinaryIO, copy)


@contextmanager
def opened(path: Path) -> Iterator[Package]:
    """A package, archive or folder.

    Raises:
        UserError: the archive is damaged, or would grow beyond reason.
    """
    if path.is_dir():
        yield Package(path, None)
        return
    try:
        archive = zipfile.ZipFile(path)
    except Exception as error:  # as above
        raise _damaged(path, error) from error
    with archive:
        members = archive.infolist()
        if len(members) > _MOST_MEMBERS:
            raise UserError(f"{path} holds more than {_MOST_MEMBERS} files: it is no ESPnet package")
        if sum(member.file_size for member in members) > _MOST_EXPANSION * path.stat().st_size:
            raise UserError(f"{path} claims to hold {_MOST_EXPANSION} times its own size; it was not read")
        yield Package(path, archive)


def _damaged(path: Path, error: Exception) -> UserError:
    text = str(error)[:200] or type(error).__name__  # it may quote a name of any length
    return UserError(f"{path} is damaged or no zip archive: {text}; download it again")
