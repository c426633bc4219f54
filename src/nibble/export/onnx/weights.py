"""Weights in an ONNX file: two 4-bit codes a byte, which ONNX Runtime makes int8 once, when it loads the file.

From opset 21 on there is a type of 4 bits. ONNX Runtime casts it since 1.23.2, which sherpa-onnx has since 1.12.20. For
older ones there is opset 17: code u of 0 ... 15 stands for u - 8, and unpacking is a remainder, a shift and a
concatenation. That takes several times the memory, for good: ONNX Runtime keeps what the nodes in between made.
"""

from typing import NamedTuple

import numpy as np
import torch
from onnx import TensorProto
from torch import Tensor, nn

from nibble.export.onnx.builder import Array, Graph
from nibble.kernels.nibbles import pack_pairs
from nibble.quant.layer import QuantizedLayer
from nibble.quant.tensor import QuantizedTensor, in_slices
from nibble.runs.exported import INT4_OPSET

NIBBLE_BITS = 4
MICROSOFT = "com.microsoft"
_MIDDLE = 8  # what is added to a code to make it unsigned


class Weight(NamedTuple):
    """A weight as integers, or as floating-point values where the layer is not quantized."""

    name: str  # <layer>.<weight>
    integers: QuantizedTensor | None  # scales in float32
    values: Tensor  # what the integers stand for
    bits: int | None

    @property
    def grouped(self) -> bool:
        """Whether several scales share an output channel."""
        return self.integers is not None and self.integers.grouped


def weight_of(module: nn.Module, layer: str, name: str = "weight") -> Weight:
    """A weight of a frozen layer, or of one that is in float."""
    if isinstance(module, QuantizedLayer) and (frozen := module.frozen_weights()):
        integers = frozen[name]._replace(scale=frozen[name].scale.float())
        return Weight(f"{layer}.{name}", integers, integers.dequantize(), module.weight_bits)
    return Weight(f"{layer}.{name}", None, getattr(module, name).detach().float(), None)


def add_codes(graph: Graph, weight: Weight, packed: bool, product: bool = False) -> str:
    """The int8 codes of a weight, less zero points, in 4 bits if `packed` and they fit.

    In torch's order, where groups have a dimension of their own; for a `product`, in that of `for_product`: were they
    turned when the file is loaded, ONNX Runtime would keep both.
    """
    assert weight.integers is not None
    assert weight.bits is not None
    integers, name = weight.integers, codes_name(weight.name, product)

    def arranged(part: Tensor) -> Tensor:
        part = in_slices(part, integers.scale)
        return for_product(part, weight) if product else part

    if not packed or weight.bits > NIBBLE_BITS:
        return graph.constant(name, arranged(integers.codes).numpy())
    add = _add_int4 if graph.opset >= INT4_OPSET else _add_pairs
    stored = arranged(integers.stored_codes()).numpy()
    if integers.zero is None:
        return add(graph, name, stored, name)
    # With the zero point subtracted, codes may need five bits, so the stored ones are packed.
    wide = graph.op("Cast", add(graph, name, stored), to=TensorProto.INT32)
    wide_zero = graph.constant(f"{name}_zero", arranged(integers.zero).to(torch.int32).numpy())
    return graph.op("Cast", graph.op("Sub", wide, wide_zero), to=TensorProto.INT8, name=name)


def for_product(part: Tensor, weight: Weight) -> Tensor:
    """Codes, scales or zero points with output channels last.

    (N, K) -> (K, N); of groups (N, G, K / G) -> (G, K / G, N); of a convolution (N, C, kh, kw) -> (kh, kw, C, N).
    """
    turned = part.movedim(0, -1)
    return turned if weight.grouped or part.dim() == 2 else turned.movedim(0, -2)


def _add_int4(graph: Graph, name: str, codes: Array, output: str | None = None) -> str:
    """Codes of -8 ... 7 as int8: one Cast, for which ONNX Runtime needs a byte a weight."""
    return graph.op("Cast", graph.int4(f"{name}_int4", codes), to=TensorProto.INT8, name=output)


def _add_pairs(graph: Graph, name: str, codes: Array, output: str | None = None) -> str:
    """The same without a type of 4 bits. What each node makes stays in memory, so all are of one byte or less.

    QLinearAdd adds int8, which Add does not; with scales of 1 it is exact.
    """
    rows = len(codes)
    stored = graph.constant(f"{name}_pairs", pack_halves((codes + _MIDDLE).astype(np.uint8)))
    low = graph.op("Mod", stored, graph.number(np.uint8(16)))
    high = graph.op("BitShift", stored, graph.number(np.uint8(4)), direction="RIGHT")
    both = graph.op("Concat", low, high, axis=0)
    if rows % 2:
        both = graph.op("Slice", both, graph.ints(0), graph.ints(rows))
    one, zero, middle = graph.number(np.float32(1)), graph.number(np.int8(0)), graph.number(np.int8(-_MIDDLE))
    terms = [graph.op("Cast", both, to=TensorProto.INT8), one, zero, middle, one, zero]
    return graph.op("QLinearAdd", *terms, one, zero, domain=MICROSOFT, name=output)


def codes_name(weight: str, product: bool) -> str:
    """The tensor that `add_codes` makes of a weight."""
    return f"{weight}_codes_turned" if product else f"{weight}_codes"


def pack_halves(unsigned: Array) -> Array:
    """Codes 0 ... 15 (N, ...) -> bytes (ceil(N / 2), ...): the first half of the rows in the low nibbles."""
    filled = np.concatenate((unsigned, np.zeros_like(unsigned[: len(unsigned) % 2])))
    pairs = torch.from_numpy(np.stack(np.split(filled, 2), -1))
    packed: Array = pack_pairs(pairs).squeeze(-1).numpy()
    return packed


def add_scale(graph: Graph, weight: Weight, *shape: int) -> str:
    """The scales of a weight, in the shape they have or in this one."""
    assert weight.integers is not None
    scale = weight.integers.scale.numpy()
    return graph.parameter(f"{weight.name}_scale", scale.reshape(shape) if shape else scale)


def add_values(graph: Graph, weight: Weight, packed: bool, exact: bool = False) -> str:
    """The floating-point values of a weight, in its own shape.

    With `exact` they are stored as they are, else as codes and scales, which are multiplied when the file is loaded.
    """
    if weight.integers is None or exact:
        return graph.parameter(weight.name, weight.values.numpy())
    floating = graph.op("Cast", add_codes(graph, weight, packed), to=TensorProto.FLOAT)
    product = graph.op("Mul", floating, add_scale(graph, weight))
    return graph.op("Reshape", product, graph.ints(*weight.values.shape)) if weight.grouped else product
