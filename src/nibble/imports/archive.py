"""Files inside a .nemo archive, which is a tar, read where they lie: nothing is unpacked into a folder."""

import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import copyfileobj
from typing import BinaryIO, cast

from nibble.errors import UserError

_MOST_MEMBERS = 1_000
_LARGEST_TEXT_BYTES = 64 * 2**20  # of a configuration or a tokenizer
_MOST_EXPANSION = 20  # of a compressed archive; float weights shrink by a tenth


class Archive:
    """An open archive.

    Raises:
        UserError: it is damaged, holds anything but files and folders, or would grow beyond reason.
    """

    def __init__(self, path: Path, tar: tarfile.TarFile) -> None:
        self._path, self._tar = path, tar
        members = []
        for member in tar:
            members.append(member)
            if len(members) > _MOST_MEMBERS:
                raise UserError(f"{path} holds more than {_MOST_MEMBERS} files: it is no .nemo file")
        for member in members:
            parts = Path(member.name).parts
            if not (member.isfile() or member.isdir()) or member.name.startswith("/") or ".." in parts:
                raise UserError(f"{path} holds {member.name!r:.80}, which is no plain file inside it; it was not read")
        self._files = {str(Path(member.name)): member for member in members if member.isfile()}
        held_bytes = path.stat().st_size
        if sum(member.size for member in members) > _MOST_EXPANSION * held_bytes:
            raise UserError(f"{path} claims to hold {_MOST_EXPANSION} times its own size; it was not read")

    def names(self) -> list[str]:
        """The files in it."""
        return list(self._files)

    def bytes_of(self, name: str) -> bytes:
        """A small file."""
        member = self._member(name)
        if member.size > _LARGEST_TEXT_BYTES:
            raise UserError(f"{self._path}: {name} has {member.size:,} bytes; at most {_LARGEST_TEXT_BYTES:,} are read")
        with self.opened(name) as file:
            return file.read()

    @contextmanager
    def opened(self, name: str) -> Iterator[BinaryIO]:
        """A file that can be read from any place; one in a compressed archive is copied to a temporary file first."""
        source = self._tar.extractfile(self._member(name))
        assert source is not None
        with source:
            if self._tar.fileobj is not None and type(self._tar.fileobj).__module__ not in ("gzip", "bz2", "lzma"):
                yield cast(BinaryIO, source)
                return
            with tempfile.TemporaryFile() as copy:
                copyfileobj(source, copy)
                copy.seek(0)
                yield cast(BinaryIO, copy)

    def _member(self, name: str) -> tarfile.TarInfo:
        if name not in self._files:
            raise UserError(f"{self._path} has no {name} inside; it holds {', '.join(sorted(self._files)[:10])}")
        return self._files[name]


@contextmanager
def opened(path: Path) -> Iterator[Archive]:
    """A .nemo archive, gzipped or not.

    Raises:
        UserError: it cannot be read.
    """
    try:
        with tarfile.open(path, "r:*") as tar:
            yield Archive(path, tar)
    except (tarfile.TarError, EOFError, OSError) as error:
        raise UserError(f"{path} is damaged or no .nemo archive: {error}; download it again") from error
