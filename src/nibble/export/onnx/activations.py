"""An activation as integers in ONNX nodes: the codes that the layer has in training, `nibble.quant.numerics`.

    s = max|x| / Q                        of each token or utterance; or one, from training
    QuantizeLinear(x, s, 128)             round_half_even(x / s) + 128, in uint8

ONNX Runtime multiplies uint8 several times faster than int8 on x86, and takes the 128 off again in the product. A layer
whose activations were in float in training gets DynamicQuantizeLinear: uint8 between the least and the largest value
that a call passes in.
"""

from typing import NamedTuple

import numpy as np
from onnx import numpy_helper

from nibble.export.onnx.builder import Array, Graph
from nibble.quant.layer import QuantizedLayer
from nibble.quant.numerics import code_bounds, largest_code, static_scale
from nibble.quant.spec import ActivationGranularity, ActivationSpec, Range

UTTERANCES = (0, -1)  # a shape, as Reshape takes it: (B, ...) -> (B, the rest)
_ZERO = np.uint8(128)
_LEAST = np.float32(2.0**-119)  # in the place of a maximum of 0, whose codes are 0 at any scale


class QuantizedInput(NamedTuple):
    """An activation as codes."""

    codes: str  # uint8, in the activation's shape, or (S, M) if there is a scale for each of S slices
    zero: str  # the code of 0: a scalar
    scale: str  # a scalar, or (S,)
    sliced: bool


def quantized(graph: Graph, x: str, layer: QuantizedLayer, slices: tuple[int, int]) -> QuantizedInput:
    """x in 8 bits, as the layer quantizes it.

    Args:
        graph: where to.
        x: name of the activation.
        layer: frozen.
        slices: a shape (S, M), as Reshape takes it: each of the S slices has a scale of its own, if it is dynamic.
    """
    spec = layer.activation_spec
    if spec is None:
        codes, scale, zero = graph.ops("DynamicQuantizeLinear", x, outputs=3)
        return QuantizedInput(codes, zero, scale, sliced=False)
    zero = graph.number(_ZERO)
    if spec.static:
        scale = _static(graph, layer, spec)
        codes = _clipped(graph, graph.op("QuantizeLinear", x, scale, zero), spec, _ZERO)
        return QuantizedInput(codes, zero, scale, sliced=False)
    sliced = graph.op("Reshape", x, graph.ints(*slices))
    scale = scales(graph, sliced, spec)
    zeros = numpy_helper.from_array(np.array([_ZERO]))
    each = graph.op("ConstantOfShape", graph.op("Shape", scale), value=zeros)
    codes = graph.op("QuantizeLinear", sliced, scale, each, axis=0)
    return QuantizedInput(_clipped(graph, codes, spec, _ZERO), zero, scale, sliced=True)


def token_slices(layer: QuantizedLayer, inputs: int) -> tuple[int, int]:
    """The slices of a product of rows (..., K): each row, or all rows of an utterance."""
    spec = layer.activation_spec
    whole = spec is not None and spec.granularity is ActivationGranularity.per_utterance
    return UTTERANCES if whole else (-1, inputs)


def scales(graph: Graph, sliced: str, spec: ActivationSpec) -> str:
    """The scale (S,) of each slice (S, M)."""
    above, below = (graph.reduce(kind, sliced, 1) for kind in ("ReduceMax", "ReduceMin"))
    highest = largest_code(spec.bits)
    if spec.range is Range.full:
        sides = (
            graph.op("Div", above, graph.number(np.float32(highest))),
            graph.op("Div", below, graph.number(np.float32(-highest - 1))),
        )
        return graph.op("Max", *sides, graph.number(_LEAST))
    largest = graph.op("Max", above, graph.op("Neg", below), graph.number(_LEAST))
    steps = highest + 0.5 if spec.range is Range.half_step else highest
    return graph.op("Div", largest, graph.number(np.float32(steps)))


def float_codes(graph: Graph, x: str, layer: QuantizedLayer, dimensions: int) -> tuple[str, str]:
    """The codes of x (B, C, ...) as signed floats, and their scale (B, 1, ...) or (), where x has so many `dimensions`
    after C.
    """
    spec = layer.activation_spec
    assert spec is not None
    if spec.static:
        scale = _static(graph, layer, spec)
    else:
        one_a_row = scales(graph, graph.op("Reshape", x, graph.ints(*UTTERANCES)), spec)
        scale = graph.op("Unsqueeze", one_a_row, graph.ints(*range(1, 2 + dimensions)))
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
