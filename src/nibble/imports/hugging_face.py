"""Folders as transformers writes them: config.json, and weights in safetensors or torch files."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from nibble.errors import UserError
from nibble.plain import parse
from nibble.runs.checkpoint_file import read_saved

_LARGEST_TEXT_BYTES = 64 * 2**20


def model_type(path: Path) -> str | None:
    """What config.json says that a folder is; empty if it is damaged, None if this is no folder of transformers."""
    file = path / "config.json"
    if not file.is_file() or (path / "tokens.txt").is_file():  # with tokens.txt it is a bundle of ours
        return None
    with file.open("rb") as opened:
        if b'"model_type"' not in opened.read(2**20):
            return None
    try:
        said = read_json(file)
    except UserError:
        return ""
    return str(said.get("model_type", "")) if isinstance(said, dict) else ""


def tensors_of(path: Path) -> dict[str, Tensor]:
    """All tensors of a folder.

    Raises:
        UserError: there are none, or a file is damaged or holds more than tensors.
    """
    files = sorted(path.glob("model*.safetensors"))
    tensors: dict[str, Tensor] = {}
    for file in files:
        try:
            with safe_open(file, "pt") as opened:
                tensors |= {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - it is no mapping
        except (SafetensorError, OSError, ValueError) as error:
            raise UserError(f"{file} is damaged: {error}; download it again") from error
    older = path / "pytorch_model.bin"
    if not files and older.is_file():
        with older.open("rb") as opened:
            saved = read_saved(opened, str(older))
        tensors = {name: tensor for name, tensor in dict(saved).items() if isinstance(tensor, Tensor)}
    if not tensors:
        raise UserError(f"{path} has no model.safetensors; download the whole folder")
    return tensors


def renamed(name: str, rules: Sequence[tuple[str, str]]) -> str:
    """The name of a tensor after all rules, each a pattern and its replacement, one after the other."""
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


def read_json(file: Path) -> Any:
    """A JSON file of a folder.

    Raises:
        UserError: it is absent, too large or damaged.
    """
    if not file.is_file():
        raise UserError(f"{file.parent} has no {file.name}; download the whole folder")
    if file.stat().st_size > _LARGEST_TEXT_BYTES:
        raise UserError(f"{file} has {file.stat().st_size:,} bytes; at most {_LARGEST_TEXT_BYTES:,} are read")
    try:
        return parse(file.read_bytes())
    except (UserError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{file} is damaged: {error}; download it again") from error
