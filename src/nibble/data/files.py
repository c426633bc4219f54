"""Lists the files below a folder, those of linked folders included."""

from collections.abc import Iterator
from pathlib import Path


def files(folder: Path) -> Iterator[Path]:
    """Every file below `folder`. Each folder is entered once, even if several links lead to it.

    Raises:
        OSError: a folder cannot be read.
    """
    entered: set[tuple[int, int]] = set()
    waiting = [folder]
    while waiting:
        parent = waiting.pop()
        status = parent.stat()
        place = (status.st_dev, status.st_ino)
        if place in entered:
            continue
        entered.add(place)
        for path in parent.iterdir():
            if path.is_dir():
                waiting.append(path)
            else:
                yield path
