"""Recognises the format of a part of a corpus by its files, and lists the parts of a folder."""

import re
from pathlib import Path
from typing import Any

from nibble.data.sources.hugging_face import SPLITS, HuggingFace, is_saved_data_set
from nibble.data.sources.kaldi import Kaldi
from nibble.data.sources.lhotse import LhotseCuts, LhotseSupervisions, recordings_beside
from nibble.data.sources.librispeech import LAYOUT, LibriSpeech
from nibble.data.sources.lines import numbered_lines
from nibble.data.sources.manifest import Manifest
from nibble.data.sources.shar import Shar, is_shar
from nibble.data.sources.source import Source
from nibble.data.sources.table import Table
from nibble.errors import UserError, nearest
from nibble.plain import parse

JSON_ENDINGS = (".jsonl.gz", ".json.gz", ".jsonl", ".json")
TABLE_ENDINGS = (".tsv", ".csv")
ENDINGS = (*JSON_ENDINGS, *TABLE_ENDINGS)
_WORDS = {"train": ("train",), "dev": ("dev", "val", "valid", "validation"), "test": ("test",)}
_ABOUT = ("recordings", "features", "alignments")  # files of Lhotse that go with others


def source_of(path: Path, columns: dict[str, str] | None = None) -> Source:
    """The part at `path`: a folder or a file in any of the formats.

    Args:
        path: of the part.
        columns: `data.columns`, of manifests and tables.

    Raises:
        UserError: there is nothing, or its format is unknown.
    """
    if path.is_dir():
        return _folder(path, columns)
    if not path.is_file():
        raise UserError(f"there is no folder or file {path}")
    if path.name.endswith(TABLE_ENDINGS):
        return Table(path, columns)
    if not path.name.endswith(JSON_ENDINGS):
        raise UserError(f"{path} is not a corpus; a file of one ends in {', '.join(ENDINGS)}")
    first = _first(path)
    if "recording" in first or "tracks" in first or str(first.get("type")).endswith("Cut"):
        return LhotseCuts(path)
    if "recording_id" in first:
        return LhotseSupervisions(path, recordings_beside(path))
    if "sources" in first and "sampling_rate" in first:
        raise UserError(f"{path} has recordings; name the file with their supervisions, or with cuts")
    return Manifest(path, columns)


def _folder(path: Path, columns: dict[str, str] | None) -> Source:
    if is_shar(path):
        return Shar(path)
    if is_saved_data_set(path):
        return HuggingFace(path, columns)
    if (path / "wav.scp").is_file():
        return Kaldi(path)
    for ending in (".jsonl.gz", ".jsonl"):
        cuts, supervisions = path / f"cuts{ending}", path / f"supervisions{ending}"
        if cuts.is_file():
            return LhotseCuts(cuts)
        if supervisions.is_file():
            return LhotseSupervisions(supervisions, recordings_beside(supervisions))
    return LibriSpeech(path)


def _first(path: Path) -> dict[str, Any]:
    """The first line of a file of JSON lines as fields; empty if it is not JSON, which the source reports later."""
    for _, line in numbered_lines(path):
        try:
            row = parse(line.encode(errors="surrogateescape"))
        except UserError as error:
            if line.strip() in ("[", "{") or line.startswith("["):
                raise UserError(
                    f"{path} is one JSON value; a manifest has one utterance a line: jq -c '.[]'"
                ) from error
            return {}
        return row if isinstance(row, dict) else {}
    raise UserError(f"{path} is empty")


def parts_folder(folder: Path, option: str) -> Path:
    """The folder of parts: `folder` itself, or the LibriSpeech folder in it.

    Raises:
        UserError: it doesn't exist or holds no part; the text begins with `option`.
    """
    if not folder.is_dir():
        if folder.is_file():
            raise UserError(f"{option}: {folder} is a file; give the folder that it is in, and its name as a part")
        raise UserError(f"{option}: no folder {folder}")
    inner = folder / "LibriSpeech"
    parts = inner if inner.is_dir() else folder
    if not parts_in(parts):
        raise UserError(
            f"{option}: {parts} is empty; LibriSpeech layout is {LAYOUT}; other formats: docs/your-speech.md"
        )
    return parts


def parts_in(folder: Path) -> dict[str, Path]:
    """Name -> path of each part in a folder: its folders, and its files of cuts, manifests and tables.

    If a folder and a file have the same name, the file is the part, and the folder holds its audio.
    """
    found = {path.name: path for path in sorted(folder.iterdir()) if path.is_dir()}
    for path in sorted(folder.iterdir()):
        ending = next((one for one in ENDINGS if path.name.endswith(one)), None)
        if ending and path.is_file() and path.name != SPLITS and not any(word in path.name for word in _ABOUT):
            found[path.name.removesuffix(ending)] = path
    return found


def part_path(folder: Path, name: str) -> Path:
    """The path of a part of `parts_in`, or of one that is given by its path."""
    return parts_in(folder).get(name, folder / name)


def select_parts(folder: Path, kind: str, wanted: list[str] | None, option: str) -> list[str]:
    """The parts named by an option, or those of a kind by their names.

    Args:
        folder: of parts.
        kind: "train", "dev" or "test": parts whose name begins with the word. If there is none, parts that have it
            somewhere, as in cuts_train.jsonl.gz; dev may also be called valid or validation.
        wanted: names of parts, or paths from the folder on; None: those of the kind.
        option: for messages.

    Raises:
        UserError: a named part doesn't exist; the text gives the nearest ones.
    """
    present = parts_in(folder)
    if wanted is None:
        beginning = [name for name in present if name.startswith(kind)]
        within = [name for name in present if not set(re.split(r"[^a-z]+", name.lower())).isdisjoint(_WORDS[kind])]
        return beginning or within
    for name in wanted:
        if name not in present and not (folder / name).exists():
            raise UserError(f"{option}: no part {name} in {folder}; there is {nearest(name, present)}")
    return list(wanted)
