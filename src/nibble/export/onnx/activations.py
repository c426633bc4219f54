"""Quantizes an activation with ONNX nodes, to the same codes as in training: `nibble.quant.numerics`.

    s = max|x| / Q                        of each token or utterance; or one number, from training
    QuantizeLinear(x, s, 128)             round_half_even(x / s) + 128, in uint8

Scales keep the dimensions that they are a maximum over, with size 1, so no Reshape stands around a layer. But
QuantizeLinear takes one scale, or one for each index of a single axis: those of utterances are such, those of tokens
(B, T, 1) are not. So x is divided by the latter before.

ONNX Runtime multiplies uint8 several times faster than int8 on x86, and takes the 128 off again in the product. A layer
whose activations were in float in training gets DynamicQuantizeLinear: uint8 between the least and the largest value
that a call passes in.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from onnx import numpy_helper

from nibble.export.onnx.builder import Array, Graph
from nibble.quant.layer import QuantizedLayer
from nibble.quant.numerics import code_bounds, largest_code, static_scale
from nibble.quant.spec import ActivationGranularity, ActivationSpec, Range

ROW = (-1,)  # axes that share a scale: of (..., K) each row has its own
UTTERANCE = (-1, 1)  # of (B, K) or (B, T, K) each of the B; of (B, K) the second changes nothing
UTTERANCE_2D = (-1, 2, 1)  # of (B, H, W, C) or (B, C, H, W)
_ZERO = np.uint8(128)
_LEAST = np.float32(2.0**-119)  # in the place of a maximum of 0, whose codes are 0 at any scale


class QuantizedInput(NamedTuple):
    """An activation as codes."""

    codes: str  # uint8, in the activation's shape
    zero: str  # the code of 0: a scalar
    scale: str  # a scalar, or several in a shape that broadcasts to the activation's
    several: bool


def quantized(graph: Graph, x: str, layer: QuantizedLayer, axes: Sequence[int]) -> QuantizedInput:
    """x in 8 bits, as the layer quantizes it.

    Args:
        graph: where to.
        x: name of the activation.
        layer: frozen.
        axes: those that share a scale, if it is dynamic.
    """
    spec = layer.activation_spec
    if spec is None:
        codes, scale, zero = graph.ops("DynamicQuantizeLinear", x, outputs=3)
        return QuantizedInput(codes, zero, scale, several=False)
    zero = graph.number(_ZERO)
    if spec.static:
        scale = _static(graph, layer, spec)
        codes = _clipped(graph, graph.op("QuantizeLinear", x, scale, zero), spec, _ZERO)
        return QuantizedInput(codes, zero, scale, several=False)
    scale = scales(graph, x, spec, axes)
    if axes == ROW:
        codes = graph.op("QuantizeLinear", graph.op("Div", x, scale), graph.number(np.float32(1)), zero)
    else:
        one_each = graph.op("Reshape", scale, graph.ints(-1))
        zeros = graph.op(
            "ConstantOfShape", graph.op("Shape", one_each), value=numpy_helper.from_array(np.array([_ZERO]))
        )
        codes = graph.op("QuantizeLinear", x, one_each, zeros, axis=0)
    return QuantizedInput(_clipped(graph, codes, spec, _ZERO), zero, scale, several=True)


def row_axes(layer: QuantizedLayer) -> tuple[int, ...]:
    """The axes of (B, K) or (B, T, K) that share a scale in a product of rows."""
    spec = layer.activation_spec
    whole = spec is not None and spec.granularity is ActivationGranularity.per_utterance
    return UTTERANCE if whole else ROW


def scales(graph: Graph, x: str, spec: ActivationSpec, axes: Sequence[int]) -> str:
    """The scales of x, which has size 1 along `axes`."""

    above, below = x, x
    for axis in axes:
        above, below = graph.reduce("ReduceMax", above, axis), graph.reduce("ReduceMin", below, axis)
    highest, least = largest_code(spec.bits), graph.number(_LEAST)
    if spec.range is Range.full:
        above = graph.op("Div", above, graph.number(np.float32(highest)))
        below = graph.op("Div", below, graph.number(np.float32(-highest - 1)))
        return graph.op("Max", above, below, least)
    steps = highest + 0.5 if spec.range is Range.half_step else highest
    largest = graph.op("Max", above, graph.op("Neg", below), least)
    return graph.op("Div", largest, graph.number(np.float32(steps)))


def float_codes(graph: Graph, x: str, layer: QuantizedLayer, axes: Sequence[int]) -> tuple[str, str]:
    """The codes of x as signed floats, and their scales, as in `quantized`."""
    spec = layer.activation_spec
    assert spec is not None
    scale = _static(graph, layer, spec) if spec.static else scales(graph, x, spec, axes)
    codes = graph.op("Round", graph.op("Div", x, scale))
    return _clipped(graph, codes, spec, np.float32(0)), scale


def _static(graph: Graph, layer: QuantizedLayer, spec: ActivationSpec) -> str:
    """The scale that training left: a scalar."""
    return graph.number(static_scale(layer.get_buffer("activation_max"), spec).numpy())


def _clipped(graph: Graph, codes: str, spec: ActivationSpec, zero: Array | np.generic) -> str:
    """Codes within their bounds, which a scale of the largest magnitude itself never leaves."""
    if not spec.static and spec.range is not Range.half_step:
        return codes
    bounds = (graph.number(zero.dtype.type(int(zero) + bound)) for bound in code_bounds(spec.bits, spec.range))
    return graph.op("Clip", codes, *bounds)
