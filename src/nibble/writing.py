"""Writes files and folders whole or not at all, even if the process that writes them is killed.

What is being written lies in a folder `.NAME.RANDOM.partial` beside its place, so on the same disk, and moves there in
one rename. The writer holds a lock in that folder, and the lock ends with its process. So the next process that writes
there can tell the remains of a killed process from the work of a living one, and removes them.
"""

import errno
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from nibble.errors import UserError

_SUFFIX = ".partial"
_LOCK = "lock"
_cleared: set[Path] = set()  # by this process


@contextmanager
def whole_file(target: Path) -> Iterator[Path]:
    """A path to write a file to, which takes the place of `target` at the end, and vanishes on an error.

    The folder of `target` is made if it is missing. The path has the name of `target`, so its suffix is the same.

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


def write_text(target: Path, text: str, cure: str = "") -> None:
    """Write a text file, UTF-8, whole or not at all.

    Args:
        target: the file; its folder is made if it is missing.
        text: what it is to hold.
        cure: what a user can do if it cannot be written, besides what follows from the reason.

    Raises:
        UserError: the disk is full, or writing is not allowed there; `target` is as it was.
    """
    with explained(target, cure), whole_file(target) as path:
        path.write_text(text, encoding="utf-8")


def make_folder_once(target: Path, make: Callable[[Path], None]) -> None:
    """Let `make` fill a folder that becomes `target`; does nothing if `target` exists.

    A second process that wants the same folder at the same time waits for the first one.

    Raises:
        UserError: the disk is full, or writing is not allowed there.
    """
    with explained(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(target.with_name(f".{target.name}.lock")):
            if target.exists():
                return
            with whole_folder(target) as partial:
                make(partial)


def writable_folder(folder: Path, option: str) -> Path:
    """The folder, made if it is missing, once it is sure that this process can write there.

    Args:
        folder: to write into.
        option: with which a user chooses it, for the message.

    Raises:
        UserError: it cannot be made, or nothing can be written there.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot create {folder}: {error.strerror}. Choose another with {option}=DIR") from error
    if not os.access(folder, os.W_OK):
        raise UserError(f"nothing can be written to {folder}. Choose another with {option}=DIR")
    return folder


@contextmanager
def explained(target: Path, cure: str = "") -> Iterator[None]:
    """Turns an `OSError` while `target` is written into a `UserError`: the file, the reason and what to do.

    Args:
        target: the file or folder that is written.
        cure: what else a user can do, such as the option that names another place.
    """
    try:
        yield
    except OSError as error:
        more = f", or {cure}" if cure else ""
        raise UserError(
            f"{target} cannot be written: {error.strerror or error}; {_remedy(target, error)}{more}"
        ) from error


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


def _remedy(target: Path, error: OSError) -> str:
    """What to do about an error of the file system."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "free some space"
    if error.errno in (errno.EEXIST, errno.ENOTDIR):
        return f"move {error.filename or target.parent} away, a file where a folder must be"
    return "permit writing there"


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
