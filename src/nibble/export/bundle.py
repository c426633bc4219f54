"""The packed file: a folder with integer weights, configuration and tokenizer, from which nothing is executed.

model.safetensors  <module>.<weight>_codes  integers, packed as `nibble.quant.packing` says
                   <module>.<weight>_scale  float16
                   <module>.<weight>_zero   int8, of asymmetric weights: what was taken from the codes
                   everything else under its own name: float16, or float32 in a bundle of a float model
config.json        the run's configuration, what the weights are, and the SHA-256 of each other file
tokenizer.model    SentencePiece
tokens.txt         "symbol id" a line, as sherpa-onnx reads it
"""

import copy
import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from nibble.config import Config, from_plain, plain
from nibble.data.tokenizer import Tokenizer
from nibble.errors import UserError
from nibble.export.loaded import Loaded, check_state, float_model
from nibble.model.transducer import Transducer
from nibble.quant.convert import freeze, load_frozen, prepare, quantized_modules, set_precision
from nibble.quant.numerics import in_slices
from nibble.quant.packing import pack, unpack
from nibble.quant.spec import Precision, Sparsity

_FORMAT = "nibble bundle"
_VERSION = 2
_FILES = ("model.safetensors", "tokenizer.model", "tokens.txt")


def write_bundle(folder: Path, model: Transducer, tokenizer: Tokenizer, config: Config, notes: dict[str, Any]) -> int:
    """Write a trained model, at the precision it is at, and return the size of all files in bytes.

    The model is copied before it is frozen. `folder` appears whole or not at all; an older bundle there is replaced.

    Args:
        folder: the bundle; its parent is made if need be.
        model: prepared for `config.quant`, at the precision and full blend it is to be used at.
        tokenizer: as in training.
        config: of the run.
        notes: `precision` ("float", "int8", "rules"), `method` (as in records), `corpus`, `step`.

    Raises:
        UserError: the folder holds something else, the disk is full, or writing is not allowed there.
    """
    check_folder(folder)
    folder = folder.absolute()
    partial = folder.parent / f".{folder.name}.{os.getpid()}.partial"
    tensors = _float_tensors(model, config, tokenizer) if notes["precision"] == Precision.float else _tensors(model)
    try:
        partial.mkdir(parents=True)
        save_file(tensors, partial / "model.safetensors")
        tokenizer.write(partial)
        description = {
            "format": _FORMAT,
            "version": _VERSION,
            **notes,
            "sha256": {name: _sha256(partial / name) for name in _FILES},
            "config": plain(config),
        }
        (partial / "config.json").write_text(json.dumps(description, indent=1) + "\n", encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
    except (OSError, SafetensorError) as error:
        raise UserError(f"the bundle {folder} cannot be written: {error}; free space or give another folder") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return bundle_bytes(folder)


def read_bundle(folder: Path) -> Loaded:
    """The model of a bundle, with integer weights, ready to use.

    Raises:
        UserError: a file is missing or damaged, or the bundle is of another version.
    """
    description = _description(folder)
    try:
        config = from_plain(description["config"])
        precision, method = Precision(description["precision"]), str(description["method"])
        corpus, step = str(description["corpus"]), int(description["step"])
    except (KeyError, ValueError, TypeError) as error:
        raise UserError(f"{folder / 'config.json'} is not whole: {type(error).__name__} at {error}") from error
    tokenizer = Tokenizer.load(folder / "tokenizer.model")
    model = _build(folder, config, tokenizer.size, precision)
    return Loaded(folder, config, tokenizer, model, precision, corpus, step, method, frozen=True)


def check_folder(folder: Path) -> None:
    """Raise `UserError` unless a bundle may be written to `folder`: it is new, empty, or holds a bundle."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file; give an empty or new folder")
    if folder.exists() and any(folder.iterdir()) and not is_bundle(folder):
        raise UserError(f"{folder} holds other files than a bundle; give an empty or new folder")


def is_bundle(folder: Path) -> bool:
    """Whether a folder looks like a bundle, whole or not."""
    return (folder / "model.safetensors").is_file() or (folder / "tokens.txt").is_file()


def bundle_bytes(folder: Path) -> int:
    """Size of all files of a bundle."""
    return sum(file.stat().st_size for file in folder.iterdir())


def stored_tensors(folder: Path) -> dict[str, Tensor]:
    """What model.safetensors of a bundle holds, by name."""
    return load_file(folder / "model.safetensors")


def _float_tensors(model: Transducer, config: Config, tokenizer: Tokenizer) -> dict[str, Tensor]:
    """What to store of a model in float: all but what only quantization uses."""
    with torch.device("meta"):  # names only
        names = float_model(config, tokenizer.size).state_dict()
    state = model.state_dict()
    return {name: state[name].detach().cpu().contiguous() for name in names}


def _tensors(model: Transducer) -> dict[str, Tensor]:
    """What to store of a quantized model: integer codes, their scales, and the rest."""
    frozen = copy.deepcopy(model).cpu()
    freeze(frozen)
    state = frozen.state_dict()
    packed = {name: pack(_given_back(name, state), *how) for name, how in _packed_codes(frozen).items()}
    return {name: packed[name] if name in packed else _half(name, tensor) for name, tensor in state.items()}


def _packed_codes(frozen: Transducer) -> dict[str, tuple[int, Sparsity | None]]:
    """Name of each tensor of integer codes of a frozen model -> the bits of a code, and its pruning."""
    return {
        f"{name}.{weight}_codes": (module.weight_bits, module.rule.sparsity)
        for name, module in quantized_modules(frozen).items()
        for weight in module.frozen_weights()
        if module.weight_bits is not None
    }


def _given_back(name: str, state: dict[str, Tensor]) -> Tensor:
    """The codes of `name` within the range of their bits: plus the zero point, if there is one."""
    codes, zero = state[name], state.get(f"{name.removesuffix('_codes')}_zero")
    return codes if zero is None else (in_slices(codes, zero) + zero).view(codes.shape)


def _taken_away(name: str, state: dict[str, Tensor]) -> Tensor:
    """The inverse of `_given_back`."""
    codes, zero = state[name], state.get(f"{name.removesuffix('_codes')}_zero")
    return codes if zero is None else (in_slices(codes, zero) - zero).view(codes.shape)


def _half(name: str, tensor: Tensor) -> Tensor:
    """A tensor in float16; counters stay integers.

    Raises:
        UserError: a value is larger than float16 can hold.
    """
    if not tensor.is_floating_point():
        return tensor.contiguous()
    half = tensor.to(torch.float16).contiguous()
    if not torch.isfinite(half).all():
        raise UserError(f"{name} has values that float16 cannot hold (largest {tensor.abs().max():g}); train again")
    return half


def _build(folder: Path, config: Config, vocabulary_size: int, precision: Precision) -> Transducer:
    """The model whose state model.safetensors of a bundle holds."""
    try:
        stored = load_file(folder / "model.safetensors")
    except SafetensorError as error:
        raise UserError(f"{folder / 'model.safetensors'} is damaged: {error}; copy the bundle again") from error
    model = float_model(config, vocabulary_size)
    if precision is Precision.float:
        check_state(folder, model, stored)
        model.load_state_dict(stored)
        return model.eval()
    prepare(model, config.quant)
    set_precision(model, precision)
    freeze(model)  # gives the codes their shapes; their values come from the file
    expected = model.state_dict()
    for name, (bits, sparsity) in _packed_codes(model).items():
        if name in stored:
            try:
                stored[name] = unpack(stored[name], bits, expected[name].shape, sparsity)
                stored[name] = _taken_away(name, stored)
            except (ValueError, RuntimeError) as error:
                raise UserError(f"{folder} holds the weights of another model: {name}: {error}") from error
    check_state(folder, model, stored)
    load_frozen(model, stored)
    return model.eval()


def _description(folder: Path) -> dict[str, Any]:
    """config.json of a bundle, with every file checked against it."""
    for name in ("config.json", *_FILES):
        if not (folder / name).is_file():
            raise UserError(f"{folder} is not a whole bundle: {name} is missing; copy the bundle again")
    try:
        description = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{folder / 'config.json'} is damaged: {error}; copy the bundle again") from error
    if not isinstance(description, dict) or description.get("format") != _FORMAT:
        raise UserError(f"{folder / 'config.json'} is not of a nibble bundle")
    if description.get("version") != _VERSION:
        raise UserError(f"{folder} is a bundle of version {description.get('version')}; this nibble reads {_VERSION}")
    for name in _FILES:
        if _sha256(folder / name) != description.get("sha256", {}).get(name):
            size = (folder / name).stat().st_size
            raise UserError(f"{folder / name} is damaged or was changed ({size} bytes); copy the bundle again")
    return description


def _sha256(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
