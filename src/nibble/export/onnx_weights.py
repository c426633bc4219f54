"""Weights in an ONNX file: two 4-bit codes a byte, unpacked by nodes that ONNX Runtime folds when it loads the file.

Code u of 0 ... 15 stands for u - 8, less a zero point if there is one. Of the flattened codes the first half are the
low nibbles and the second half the high ones, so that unpacking is a remainder, a shift and a concatenation. These
operators are in opset 17 for uint8, which ONNX Runtime has had since 1.16.
"""

from typing import NamedTuple

import numpy as np
import torch
from onnx import TensorProto
from torch import Tensor, nn

from nibble.export.onnx_graph import Array, Graph
from nibble.quant.layer import QuantizedLayer
from nibble.quant.numerics import Integers, dequantize, in_slices

NIBBLE_BITS = 4
_MIDDLE = 8  # what is added to a code to make it unsigned


class Weight(NamedTuple):
    """A weight as integers, or as floating-point values where the layer is not quantized."""

    name: str  # <layer>.<weight>
    integers: Integers | None  # scales in float32
    values: Tensor  # what the integers stand for
    bits: int | None

    @property
    def grouped(self) -> bool:
        """Whether several scales share an output channel."""
        return self.integers is not None and self.integers.scale.dim() > self.integers.codes.dim()


def weight_of(module: nn.Module, layer: str, name: str = "weight") -> Weight:
    """A weight of a frozen layer, or of one that is in float."""
    if isinstance(module, QuantizedLayer) and (frozen := module.frozen_weights()):
        codes, scale, zero = frozen[name]
        integers = Integers(codes, scale.float(), zero)
        return Weight(f"{layer}.{name}", integers, dequantize(codes, scale.float()), module.weight_bits)
    return Weight(f"{layer}.{name}", None, getattr(module, name).detach().float(), None)


def add_codes(graph: Graph, weight: Weight, packed: bool) -> str:
    """The int8 codes of a weight, less zero points, in torch's shape and order; groups have a dimension of their own.

    Whatever the order a product wants, the file has torch's, and ONNX Runtime turns it when it loads the file: so the
    integers of a file can be compared with those of a model. They are stored in 4 bits if `packed` and they fit.
    """
    assert weight.integers is not None
    assert weight.bits is not None
    codes, scale, zero = weight.integers
    codes, name = in_slices(codes, scale), codes_name(weight.name)
    if not packed or weight.bits > NIBBLE_BITS:
        return graph.constant(name, codes.numpy())
    offset = torch.tensor(_MIDDLE, dtype=torch.int32) if zero is None else zero.to(torch.int32) + _MIDDLE
    stored = graph.constant(f"{name}_nibbles", pack_halves((codes.to(torch.int32) + offset).to(torch.uint8).numpy()))
    low = graph.op("Mod", stored, graph.number(np.uint8(16)))
    high = graph.op("BitShift", stored, graph.number(np.uint8(4)), direction="RIGHT")
    both = graph.op("Concat", low, high, axis=0)
    if codes.numel() % 2:
        both = graph.op("Slice", both, graph.ints(0), graph.ints(codes.numel()))
    wide = graph.op("Reshape", graph.op("Cast", both, to=TensorProto.INT32), graph.ints(*codes.shape))
    middle = graph.number(np.int32(_MIDDLE)) if zero is None else graph.constant(f"{name}_zero", offset.numpy())
    return graph.op("Cast", graph.op("Sub", wide, middle), to=TensorProto.INT8, name=name)


def codes_name(weight: str) -> str:
    """The tensor that `add_codes` makes of a weight."""
    return f"{weight}_codes"


def pack_halves(unsigned: Array) -> Array:
    """Codes 0 ... 15 of any shape -> bytes: the first half in the low nibbles, the second in the high ones."""
    flat = np.pad(unsigned.reshape(-1), (0, unsigned.size % 2))
    low, high = flat.reshape(2, -1)
    return (low | high << 4).astype(np.uint8)


def add_scale(graph: Graph, weight: Weight) -> str:
    """The scales of a weight, in the shape they have."""
    assert weight.integers is not None
    return graph.parameter(f"{weight.name}_scale", weight.integers.scale.numpy())


def add_values(graph: Graph, weight: Weight, packed: bool, exact: bool = False) -> str:
    """The floating-point values of a weight, in its own shape.

    With `exact` they are stored as they are, else as codes and scales, which are multiplied when the file is loaded.
    """
    if weight.integers is None or exact:
        return graph.parameter(weight.name, weight.values.numpy())
    floating = graph.op("Cast", add_codes(graph, weight, packed), to=TensorProto.FLOAT)
    product = graph.op("Mul", floating, add_scale(graph, weight))
    return graph.op("Reshape", product, graph.ints(*weight.values.shape)) if weight.grouped else product
