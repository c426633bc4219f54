"""Writes model.safetensors of a bundle, and reads it as a model with integer weights.

<module>.<weight>_codes  uint8: integers, packed as `nibble.quant.packing` says
<module>.<weight>_scale  float16
<module>.<weight>_zero   int8, of asymmetric weights: what was taken from the codes
everything else          under its own name: float16, or float32 in a bundle of a float model; counters int64

Reading compares names, types and shapes in the file's header with those of the model that the configuration describes,
which until then has no storage. So no configuration makes it take more memory than the file has weights.
"""

import json
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from nibble.config import Config
from nibble.errors import UserError
from nibble.model.transducer import Transducer
from nibble.quant.convert import freeze, prepare, quantized_modules, set_precision
from nibble.quant.packing import packed_bytes
from nibble.quant.spec import Precision, Sparsity
from nibble.quant.tensor import QuantizedTensor
from nibble.runs.finite import not_finite
from nibble.runs.frozen import frozen_copy
from nibble.runs.loaded import Loaded, check_sizes, compare, float_model
from nibble.shapes import shapes_only

WEIGHTS = "model.safetensors"
# In the order of the tensors in the file, for each type from the first name on: the widest first.
_TYPE_NAMES = {torch.int64: "I64", torch.float32: "F32", torch.float16: "F16", torch.int8: "I8", torch.uint8: "U8"}
_ITEM_BYTES = {"I64": 8, "F32": 4, "F16": 2, "I8": 1, "U8": 1}


class Stored(NamedTuple):
    """The type and shape of a tensor in the file's header."""

    type: str  # F32, F16, I64, I8, U8
    shape: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.type} {self.shape}"

    @property
    def size_bytes(self) -> int:
        """The size of the tensor, without its entry in the header."""
        return _ITEM_BYTES[self.type] * prod(self.shape)


def stored(path: Path) -> dict[str, Stored]:
    """The tensors of a safetensors file by name; only its header is read.

    Raises:
        UserError: the file is damaged.
    """
    try:
        with safe_open(path, "pt") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            return {name: Stored(found.get_dtype(), tuple(found.get_shape())) for name, found in slices.items()}
    except SafetensorError as error:
        raise UserError(f"{path} is damaged: {error}; copy the bundle again") from error


def stored_of(loaded: Loaded) -> dict[str, Stored]:
    """The tensors that the file of a model's bundle holds or would hold, by name."""
    return {name: Stored(_TYPE_NAMES[x.dtype], tuple(x.shape)) for name, x in tensors_of(loaded).items()}


def file_bytes(tensors: Mapping[str, Stored]) -> int:
    """The size of a safetensors file: its header (https://github.com/huggingface/safetensors), and the tensors."""
    order = list(_ITEM_BYTES)
    header, end = {}, 0
    for name, tensor in sorted(tensors.items(), key=lambda item: (order.index(item[1].type), item[0])):
        start, end = end, end + tensor.size_bytes
        header[name] = {"dtype": tensor.type, "shape": tensor.shape, "data_offsets": (start, end)}
    header_bytes = len(json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode())
    return 8 + -(-header_bytes // 8) * 8 + end


def tensors_of(loaded: Loaded) -> dict[str, Tensor]:
    """The tensors to store for a model at its precision; the model stays as it is.

    Raises:
        UserError: a value is not finite, or larger than float16 can hold.
    """
    model = loaded.model
    if name := not_finite(model.state_dict()):
        raise UserError(
            f"{name} is not finite, so no bundle of this model was written: its training has diverged. Use an earlier "
            "checkpoint of the run, or train again with a lower optimizer.learning_rate"
        )
    if loaded.precision is Precision.float:
        with shapes_only():
            names = float_model(loaded.config, loaded.tokenizer.size).state_dict()
        state = model.state_dict()
        return {name: state[name].detach().cpu().contiguous() for name in names}
    frozen = frozen_copy(model)
    state = frozen.state_dict()
    packed = {name: _quantized(name, state).to_bytes(*how) for name, how in _packed_codes(frozen).items()}
    return {name: packed[name] if name in packed else _half(name, tensor) for name, tensor in state.items()}


def read_model(path: Path, config: Config, vocabulary_size: int, precision: Precision) -> Transducer:
    """The model whose tensors a file holds, in eval mode.

    Raises:
        UserError: the file is damaged, or holds other tensors than those of the model that `config` describes.
    """
    found = stored(path)
    check_sizes(path.parent / "config.json", config, len(found), path.stat().st_size)
    model = _without_storage(path.parent, config, vocabulary_size, precision)
    expected, packed = model.state_dict(), _packed_codes(model)
    types = {name: _as_stored(tensor, precision) for name, tensor in expected.items()}
    for name, (bits, sparsity) in packed.items():
        whole, pruned = (
            Stored("U8", (packed_bytes(expected[name].numel(), bits, pattern),)) for pattern in (None, sparsity)
        )
        types[name] = pruned if found.get(name) == pruned else whole
    compare(path.parent, types, found)
    tensors = load_file(path)
    for name, (bits, sparsity) in packed.items():
        try:
            like = _quantized(name, tensors)._replace(codes=expected[name])
            tensors[name] = QuantizedTensor.from_bytes(tensors[name], like, bits, sparsity).codes
        except ValueError as error:
            raise UserError(f"{path} is damaged: {name}: {error}; copy the bundle again") from error
    # Copies: the file may change or go while the model is in use.
    model.load_state_dict(
        {name: tensors.pop(name).to(like.dtype, copy=True) for name, like in expected.items()}, assign=True
    )
    return model.eval()


def _without_storage(folder: Path, config: Config, vocabulary_size: int, precision: Precision) -> Transducer:
    """The model that a configuration describes, its weights frozen at `precision`: names, types and shapes alone."""
    try:
        with shapes_only():
            model = float_model(config, vocabulary_size)
            if precision is not Precision.float:
                prepare(model, config.quant)
                set_precision(model, precision)
                freeze(model)
    except (UserError, RuntimeError, ValueError, TypeError, LookupError, ArithmeticError) as error:
        text = str(error).partition("\n")[0]
        raise UserError(f"{folder / 'config.json'} describes a model that cannot be: {text}") from error
    return model


def _as_stored(tensor: Tensor, precision: Precision) -> Stored:
    dtype = torch.float16 if tensor.is_floating_point() and precision is not Precision.float else tensor.dtype
    return Stored(_TYPE_NAMES[dtype], tuple(tensor.shape))


def _packed_codes(frozen: Transducer) -> dict[str, tuple[int, Sparsity | None]]:
    """Name of each tensor of integer codes of a frozen model -> the bits of a code, and its pruning."""
    return {
        f"{name}.{weight}_codes": (module.weight_bits, module.rule.sparsity)
        for name, module in quantized_modules(frozen).items()
        for weight in module.frozen_weights()
        if module.weight_bits is not None
    }


def _quantized(name: str, state: dict[str, Tensor]) -> QuantizedTensor:
    """The codes of `name` in a state dict, with the scales and zero points that belong to them."""
    weight = name.removesuffix("_codes")
    return QuantizedTensor(state[name], state[f"{weight}_scale"], state.get(f"{weight}_zero"))


def _half(name: str, tensor: Tensor) -> Tensor:
    """A tensor in float16; counters stay integers."""
    if not tensor.is_floating_point():
        return tensor.contiguous()
    half = tensor.to(torch.float16).contiguous()
    if not torch.isfinite(half).all():
        raise UserError(f"{name} has values that float16 cannot hold (largest {tensor.abs().max():g}); train again")
    return half
