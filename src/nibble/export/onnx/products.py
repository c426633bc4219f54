"""The product of an activation and a weight as ONNX nodes, in each encoding.

float  values in 32 bits, float products
w4     codes in 4 bits, float activations: MatMulNBits, or values that are made when the file is loaded
w4a8   codes in 4 bits, w8a8 codes in 8; products of integers, the same sums that the trained layer has:

    QuantizeLinear          x / s -> q in uint8, with scales s and zero point z: `nibble.export.onnx.activations`
    MatMulIntegerToFloat    (q - z) . codes, in int32, times the weight's scales, in one operator
    Mul, Add                times s, plus the bias

x86 CPUs without VNNI add pairs of products in 16 bits: with codes of 8 bits the sum can overflow, with 4 it can't.
"""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from onnx import TensorProto
from torch import nn

from nibble.export.onnx.activations import QuantizedInput, quantized, row_axes
from nibble.export.onnx.builder import Array, Graph
from nibble.export.onnx.weights import MICROSOFT, NIBBLE_BITS, Weight, add_codes, add_scale, add_values
from nibble.export.options import Encoding
from nibble.kernels.nibbles import pack_pairs
from nibble.quant.layer import QuantizedLayer

_BLOCKS = (128, 64, 32, 16)  # of MatMulNBits along K


def integer_activations(encoding: Encoding) -> bool:
    """Whether products are of integers."""
    return encoding in (Encoding.w8a8, Encoding.w4a8)


def packed(encoding: Encoding) -> bool:
    """Whether codes of up to 4 bits are stored in 4 bits."""
    return encoding in (Encoding.w4, Encoding.w4a8)


def values(graph: Graph, weight: Weight, encoding: Encoding) -> str:
    """The floating-point values of a weight, in its own shape."""
    return add_values(graph, weight, packed(encoding), exact=encoding is Encoding.float)


def add_product(graph: Graph, x: str, weight: Weight, module: nn.Module, encoding: Encoding) -> str:
    """x (..., K) times the weight (N, K) of a module -> (..., N)."""
    if weight.integers is not None and integer_activations(encoding):
        assert isinstance(module, QuantizedLayer)
        return _integer_product(graph, x, weight, module, encoding)
    if weight.integers is not None and encoding is Encoding.w4 and _fits_blocks(weight):
        return _block_product(graph, x, weight)
    return graph.op("MatMul", x, graph.op("Transpose", values(graph, weight, encoding), perm=[1, 0]))


def _integer_product(graph: Graph, x: str, weight: Weight, layer: QuantizedLayer, encoding: Encoding) -> str:
    """x (..., K) times weight (N, K) -> (..., N), on the codes of both."""
    given = quantized(graph, x, layer, row_axes(layer))
    codes = add_codes(graph, weight, packed(encoding), product=True)
    product = (_grouped_product if weight.grouped else integer_product)(graph, given, codes, weight)
    return graph.op("Mul", product, given.scale) if given.several else product


def integer_product(graph: Graph, given: QuantizedInput, codes: str, weight: Weight) -> str:
    """The codes (..., K) of `given` times codes (K, N), times the weight's scales -> (..., N).

    Times the activation's scale as well, unless there are several.
    """
    scale = graph.number(np.float32(1)) if given.several else given.scale
    columns = add_scale(graph, weight, -1)
    return graph.op("MatMulIntegerToFloat", given.codes, codes, scale, columns, given.zero, domain=MICROSOFT)


def _grouped_product(graph: Graph, given: QuantizedInput, codes: str, weight: Weight) -> str:
    """As `integer_product`, where groups of K have scales: (G, rows, K / G) . (G, K / G, N), then the sum over G."""
    size = _group_size(weight)
    scale = graph.op("Transpose", add_scale(graph, weight), perm=[1, 2, 0])  # (N, G, 1) -> (G, 1, N)
    by_group = graph.op("Reshape", given.codes, graph.ints(-1, weight.values.shape[1] // size, size))
    groups = graph.op("Transpose", by_group, perm=[1, 0, 2])
    sums = graph.op("Cast", graph.op("MatMulInteger", groups, codes, given.zero), to=TensorProto.FLOAT)
    total = graph.op("ReduceSum", graph.op("Mul", sums, scale), graph.ints(0), keepdims=0)
    before = graph.op("Shape", given.codes, end=-1)
    out = graph.op("Reshape", total, graph.op("Concat", before, graph.ints(weight.values.shape[0]), axis=0))
    return out if given.several else graph.op("Mul", out, given.scale)


def _block_product(graph: Graph, x: str, weight: Weight) -> str:
    """x times codes of 4 bits, which ONNX Runtime multiplies by their scales as it goes (accuracy level 0: in float).

    It wants a scale for each block of K; the file has those of the weight, and they are repeated when it is loaded.
    """
    assert weight.integers is not None
    _, scale, zero = weight.integers
    rows, columns = weight.values.shape
    codes, size = block_codes(weight)
    blocks = codes.shape[1]
    own = add_scale(graph, weight, scale.shape[0], -1)
    repeated = graph.op("Reshape", graph.op("Expand", own, graph.ints(rows, blocks)), graph.ints(-1))
    inputs = [x, graph.constant(blocks_name(weight.name), codes), repeated]
    if zero is not None:
        unsigned = (zero.reshape(zero.shape[0], -1).expand(rows, blocks).to(torch.int16) + 8).to(torch.uint8)
        inputs.append(graph.constant(f"{weight.name}_zero", pack_pairs(unsigned).reshape(-1).numpy()))
    sizes: Any = {"K": columns, "N": rows, "bits": NIBBLE_BITS, "block_size": size, "accuracy_level": 0}
    return graph.op("MatMulNBits", *inputs, domain=MICROSOFT, **sizes)


def block_codes(weight: Weight) -> tuple[Array, int]:
    """Codes (N, K) as the bytes of MatMulNBits, (N, blocks, block / 2), low nibble first; and the size of a block."""
    assert weight.integers is not None
    codes = weight.integers.stored_codes()
    rows, columns = codes.shape
    size = _block_size(weight)
    unsigned = (codes.to(torch.int16) + 8).to(torch.uint8)
    filled = F.pad(unsigned, (0, -columns % size), value=8)
    packed: Array = pack_pairs(filled).reshape(rows, -1, size // 2).numpy()
    return packed, size


def blocks_name(weight: str) -> str:
    """The tensor of `block_codes` of a weight."""
    return f"{weight}_blocks"


def _fits_blocks(weight: Weight) -> bool:
    """Whether MatMulNBits can take this weight: 4 bits, and a group is one of its blocks."""
    assert weight.bits is not None
    return weight.bits <= NIBBLE_BITS and (not weight.grouped or _group_size(weight) in _BLOCKS)


def _block_size(weight: Weight) -> int:
    if weight.grouped:
        return _group_size(weight)
    return next((size for size in _BLOCKS if weight.values.shape[1] % size == 0), _BLOCKS[-1])


def _group_size(weight: Weight) -> int:
    assert weight.integers is not None
    return weight.values.shape[1] // weight.integers.scale.shape[1]
