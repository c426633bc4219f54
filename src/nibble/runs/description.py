"""config.json of a bundle: what its weights are, the run's configuration, and checksums.

{"format": "nibble bundle", "version": 3,
 "precision": "rules", "method": "qat", "corpus": "digits", "step": 1200, "heard_s": 69120.5,
 "config": {...},                                          every option of the run, as `nibble.config` defines them
 "sha256": {"config.json": ..., "model.safetensors": ..., "tokenizer.model": ..., "tokens.txt": ...}}

The checksum of config.json is that of its other entries, as JSON without spaces and with sorted names. README.md has
none: nothing is read from it, so that whoever passes a bundle on may change it or leave it out.

The file may come from anywhere: its size is limited, it must have exactly these entries and options of these types and
no others, and it can only name those four files. Nothing in it is resolved, imported or run.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nibble.config import Config, plain, portable
from nibble.errors import UserError, nearest
from nibble.plain import build, parse
from nibble.quant.spec import Precision
from nibble.runs.folder import checksum
from nibble.runs.loaded import Loaded
from nibble.runs.method import Method

CHECKED = ("model.safetensors", "tokenizer.model", "tokens.txt")
DESCRIPTION = "config.json"
_FORMAT = "nibble bundle"
_VERSION = 3
_MAX_BYTES = 2**20  # some hundred times what the options of a run take


@dataclass(frozen=True)
class Description:
    """The contents of config.json."""

    format: str
    version: int
    precision: Precision
    method: Method
    corpus: str  # trained on
    step: int
    config: Config
    sha256: dict[str, str]  # file -> checksum
    heard_s: float | None = None  # absent in bundles of older versions


def described(loaded: Loaded, checksums: Mapping[str, str]) -> str:
    """The text of config.json.

    Args:
        loaded: the model of the bundle.
        checksums: of each file in `CHECKED`.
    """
    said = {"format": _FORMAT, "version": _VERSION, **loaded.notes, "config": plain(portable(loaded.config))}
    all_checksums = {DESCRIPTION: _own_checksum(said), **checksums}
    return json.dumps({**said, "sha256": all_checksums}, indent=1) + "\n"


def read_description(folder: Path) -> Description:
    """Read config.json of a bundle, and check every file against it.

    Raises:
        UserError: a file is missing, damaged or changed; the bundle is of another version; or an entry is unknown,
            missing or of another type.
    """
    for name in (DESCRIPTION, *CHECKED):
        if not (folder / name).is_file():
            raise UserError(f"{folder} is not a whole bundle: {name} is missing; copy the bundle again")
    path = folder / DESCRIPTION
    said = _read_json(path)
    if said.get("format") != _FORMAT:
        raise UserError(f"{path} is not of a nibble bundle")
    if said.get("version") != _VERSION:
        raise UserError(
            f"{folder} is a bundle of version {str(said.get('version'))[:20]}; this nibble reads {_VERSION}. Write it "
            "again from its checkpoint: python -m nibble.export checkpoint=RUN target=bundle"
        )
    try:
        description = build(Description, said)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    _check_files(folder, description.sha256, said)
    return description


def _read_json(path: Path) -> dict[str, Any]:
    size = path.stat().st_size
    if size > _MAX_BYTES:
        raise UserError(f"{path} has {size} bytes, and a bundle's has less than {_MAX_BYTES}; copy the bundle again")
    try:
        said = parse(path.read_bytes())
    except UserError as error:
        raise UserError(f"{path} is damaged: {error}; copy the bundle again") from error
    if not isinstance(said, dict):
        raise UserError(f"{path} is not of a nibble bundle")
    return said


def _check_files(folder: Path, checksums: Mapping[str, str], said: Mapping[str, Any]) -> None:
    files = (DESCRIPTION, *CHECKED)
    for name in checksums:
        if name not in files:
            raise UserError(
                f"{folder / DESCRIPTION}: {name[:60]!r} is no file of a bundle; nearest: {nearest(name[:60], files)}"
            )
    for name in files:
        found = _own_checksum(said) if name == DESCRIPTION else checksum(folder / name)
        if found != checksums.get(name):
            size = (folder / name).stat().st_size
            raise UserError(f"{folder / name} is damaged or was changed ({size} bytes); copy the bundle again")


def _own_checksum(said: Mapping[str, Any]) -> str:
    others = {name: value for name, value in said.items() if name != "sha256"}
    return hashlib.sha256(json.dumps(others, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
