"""Which format a part of a corpus is in, by what lies there, and which parts a folder holds."""

from pathlib import Path

from nibble.data.sources.librispeech import LAYOUT, LibriSpeech
from nibble.data.sources.shar import Shar, is_shar
from nibble.data.sources.source import Source
from nibble.errors import UserError, nearest


def source_of(path: Path) -> Source:
    """The part at `path`.

    Raises:
        UserError: nothing lies there.
    """
    if is_shar(path):
        return Shar(path)
    return LibriSpeech(path)


def parts_folder(folder: Path, option: str) -> Path:
    """The folder of parts: `folder` itself, or the LibriSpeech folder in it.

    Raises:
        UserError: it doesn't exist or holds no part; the text begins with `option`.
    """
    if not folder.is_dir():
        raise UserError(f"{option}: no folder {folder}")
    inner = folder / "LibriSpeech"
    parts = inner if inner.is_dir() else folder
    if not parts_in(parts):
        raise UserError(f"{option}: {parts} is empty; LibriSpeech layout is {LAYOUT}")
    return parts


def parts_in(folder: Path) -> dict[str, Path]:
    """Name -> path of each part in a folder."""
    return {path.name: path for path in sorted(folder.iterdir()) if path.is_dir()}


def part_path(folder: Path, name: str) -> Path:
    """The path of a part of `parts_in`, or of one that is given by its path."""
    return parts_in(folder).get(name, folder / name)


def select_parts(folder: Path, prefix: str, wanted: list[str] | None, option: str) -> list[str]:
    """The parts named by an option, or those that begin with `prefix`.

    Raises:
        UserError: a named part doesn't exist; the text gives the nearest ones.
    """
    present = parts_in(folder)
    if wanted is None:
        return [name for name in present if name.startswith(prefix)]
    for name in wanted:
        if name not in present:
            raise UserError(f"{option}: no part {name} in {folder}; there is {nearest(name, present)}")
    return list(wanted)
