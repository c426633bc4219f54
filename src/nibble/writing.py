"""Files and folders that are written whole or not at all, whenever the process that writes them ends.

What is being written lies in a folder `.NAME.RANDOM.partial` beside its place, so on the same disk, and moves there in
one rename. The writer holds a lock in that folder, which ends with its process: so what a killed process has left is
told from what another one is writing, and removed by the next process that writes beside it.
"""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

_SUFFIX = ".partial"
_LOCK = "lock"
_cleared: set[Path] = set()  # by this process


@contextmanager
def whole_file(target: Path) -> Iterator[Path]:
    """A path to write a file to, which takes the place of `target` at the end, and vanishes on an error.

    Its folder is made if need be. The path has the name of `target`, so that a suffix keeps its meaning.

    Raises:
        OSError: the disk is full, or writing is not allowed there; `target` is as it was.
    """
    with _beside(target) as place:
        written = place / target.name
        yield written
        written.replace(target)


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """A new folder to write into, which takes the place of `target` at the end, and vanishes on an error.

    Raises:
        OSError: as for `whole_file`.
    """
    with _beside(target) as place:
        written = place / target.name
        written.mkdir()
        yield written
        older = place / f"{target.name}.older"
        with suppress(FileNotFoundError):
            target.rename(older)
        try:
            written.rename(target)
        except OSError:
            with suppress(OSError):
                older.rename(target)
            raise


def write_text(target: Path, text: str) -> None:
    """Write a text file, UTF-8, whole or not at all.

    Raises:
        OSError: as for `whole_file`.
    """
    with whole_file(target) as path:
        path.write_text(text, encoding="utf-8")


def clear(folder: Path) -> None:
    """Remove what killed processes have left half-written in a folder.

    Raises:
        OSError: something cannot be removed.
    """
    for place in folder.glob(f".*{_SUFFIX}"):
        lock = FileLock(place / _LOCK)
        with suppress(Timeout, OSError):  # its writer is at work, or another process clears it
            lock.acquire(timeout=0)
            try:
                shutil.rmtree(place, ignore_errors=True)
            finally:
                lock.release()


@contextmanager
def _beside(target: Path) -> Iterator[Path]:
    """A folder of this process beside `target`, which ends with the context."""
    parent = target.absolute().parent
    parent.mkdir(parents=True, exist_ok=True)
    if parent not in _cleared:
        _cleared.add(parent)
        clear(parent)
    while True:
        place = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=_SUFFIX, dir=parent))
        lock = FileLock(place / _LOCK)
        with suppress(Timeout, OSError):
            lock.acquire(timeout=0)
            if (place / _LOCK).exists():
                break
        if place.exists():
            raise OSError(f"cannot lock files in {parent}")
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)
        lock.release()
