"""Writes one layer of the network as ONNX nodes; see `nibble.export.onnx.products` for the encodings."""

from typing import Any

import numpy as np
import torch
from onnx import TensorProto
from torch import nn

from nibble.export.onnx.activations import UTTERANCE, UTTERANCE_2D, float_codes, quantized
from nibble.export.onnx.builder import Graph
from nibble.export.onnx.products import add_product, integer_activations, integer_product, packed, values
from nibble.export.onnx.weights import MICROSOFT, Weight, add_codes, add_scale, weight_of
from nibble.export.options import Encoding
from nibble.model.padding import MaskedBatchNorm
from nibble.quant.layer import QuantizedLayer

_LSTM_WEIGHTS = ("weight_ih_l0", "weight_hh_l0")
_LSTM_BIASES = ("bias_ih_l0", "bias_hh_l0")


def add_layer(graph: Graph, layer: str, module: nn.Module, inputs: list[str], encoding: Encoding) -> str:
    """The nodes of a module; the name of its output.

    Args:
        graph: where to.
        layer: name of the module.
        module: one of `nibble.runs.frozen.LAYERS`; frozen if it is quantized.
        inputs: what the module is called with; of an LSTM also what `nibble.export.onnx.trace` gives it.
        encoding: how weights and products are.
    """
    if isinstance(module, nn.Linear):
        product = add_product(graph, inputs[0], weight_of(module, layer), module, encoding)
        return _with_bias(graph, product, layer, module)
    if isinstance(module, (nn.Conv1d, nn.Conv2d)):
        weight = weight_of(module, layer)
        if isinstance(module, QuantizedLayer) and weight.integers is not None and integer_activations(encoding):
            if _is_product(module):
                return _window_product(graph, inputs[0], weight, layer, module, encoding)
            if module.activation_spec is not None:
                return _convolution_of_codes(graph, inputs[0], weight, layer, module, encoding)
        return _convolution(graph, inputs[0], values(graph, weight, encoding), module, _bias(graph, layer, module))
    if isinstance(module, nn.Embedding):
        return graph.op("Gather", values(graph, weight_of(module, layer), encoding), inputs[0])
    if isinstance(module, nn.LSTM):
        return _lstm(graph, layer, module, inputs, encoding)
    if isinstance(module, MaskedBatchNorm):
        return _norm(graph, layer, module, inputs[0])
    raise TypeError(f"{layer}: no ONNX nodes for {type(module).__name__}")


def _is_product(module: nn.Module) -> bool:
    """Whether a convolution is one product of its windows; a depthwise one isn't."""
    if not isinstance(module, nn.Conv2d):
        return False
    return (module.groups, module.dilation) == (1, (1, 1)) and not isinstance(module.padding, str)


def _convolution(graph: Graph, x: str, weight: str, module: nn.Module, bias: str = "") -> str:
    """x (B, C, T) or (B, C, H, W) -> (B, N, ...), in floats.

    One over T has height 1: depthwise ones over two dimensions take a third of the time in ONNX Runtime.
    """
    assert isinstance(module, (nn.Conv1d, nn.Conv2d))
    missing = 2 - len(module.kernel_size)
    if missing:
        x, weight = (graph.op("Unsqueeze", one, graph.ints(2)) for one in (x, weight))
    padding = [0] * missing + [int(size) for size in module.padding]
    one = [1] * missing
    moves: Any = {"strides": [*one, *module.stride], "pads": padding * 2, "dilations": [*one, *module.dilation]}
    out = graph.op("Conv", *filter(None, (x, weight, bias)), group=module.groups, **moves)
    return graph.op("Squeeze", out, graph.ints(2)) if missing else out


def _convolution_of_codes(
    graph: Graph, x: str, weight: Weight, layer: str, module: QuantizedLayer, encoding: Encoding
) -> str:
    """x (B, C, T) or (B, C, H, W), on the codes of both factors, as floats: sums below 2^24 are exact.

    ONNX Runtime's depthwise convolution of integers takes several times as long.
    """
    assert isinstance(module, (nn.Conv1d, nn.Conv2d))
    dimensions = len(module.kernel_size)
    codes, scale = float_codes(graph, x, module, UTTERANCE if dimensions == 1 else UTTERANCE_2D)
    weight_codes = graph.op("Cast", add_codes(graph, weight, packed(encoding)), to=TensorProto.FLOAT)
    sums = _convolution(graph, codes, weight_codes, module)
    channels = -1, *(1,) * dimensions
    scaled = graph.op("Mul", sums, graph.op("Mul", scale, add_scale(graph, weight, *channels)))
    bias = _bias(graph, layer, module, *channels)
    return graph.op("Add", scaled, bias) if bias else scaled


def _window_product(
    graph: Graph, x: str, weight: Weight, layer: str, module: QuantizedLayer, encoding: Encoding
) -> str:
    """x (B, C, H, W) -> (B, N, H', W'): the windows under the kernel side by side, (B, H', W', kh kw C), as a product.

    On one core that takes about half the time of ONNX Runtime's ConvInteger.
    """
    assert isinstance(module, nn.Conv2d)
    (height, width), stride = module.kernel_size, module.stride
    channels_last = graph.op("Transpose", x, perm=[0, 2, 3, 1])
    if any(module.padding):  # zeros don't change a scale, and their code is that of zero
        edges = graph.ints(0, *module.padding, 0, 0, *module.padding, 0)
        channels_last = graph.op("Pad", channels_last, edges)
    given = quantized(graph, channels_last, module, UTTERANCE_2D)
    windows = [
        graph.op(
            "Slice",
            given.codes,
            graph.ints(row, column),
            graph.ints(*(_end(left) for left in (height - 1 - row, width - 1 - column))),
            graph.ints(1, 2),
            graph.ints(*stride),
        )
        for row in range(height)
        for column in range(width)
    ]
    codes = add_codes(graph, weight, packed(encoding), product=True)  # (kh, kw, C, N)
    codes = graph.op("Reshape", codes, graph.ints(-1, module.out_channels))
    side_by_side = given._replace(codes=graph.op("Concat", *windows, axis=3))
    out = integer_product(graph, side_by_side, codes, weight)
    if given.several:
        out = graph.op("Mul", out, given.scale)
    return graph.op("Transpose", _with_bias(graph, out, layer, module), perm=[0, 3, 1, 2])


def _end(left: int) -> int:
    """Where a slice ends that leaves out the last `left`."""
    return -left if left else np.iinfo(np.int64).max


def _lstm(graph: Graph, layer: str, module: nn.LSTM, given: list[str], encoding: Encoding) -> str:
    """As `nibble.export.onnx.trace` calls it.

    x (N, U, K), steps (N,) -> the hidden state after so many steps (N, P); without steps, all of them (N, U, P).
    x, hidden and cell before, (1, N, P) each -> those after the last step, (2, N, P).
    """
    x, *rest = given
    steps, before = (rest, []) if len(rest) < 2 else ([], rest)
    weights = [weight_of(module, layer, name) for name in _LSTM_WEIGHTS]
    # DynamicQuantizeLSTM takes one scale a channel; where there are groups of K, the LSTM runs on values.
    integers = integer_activations(encoding) and all(one.integers is not None and not one.grouped for one in weights)
    gates = 4 * module.hidden_size
    inputs = [graph.op("Transpose", x, perm=[1, 0, 2])]
    for weight in weights:
        stored = add_codes(graph, weight, packed(encoding)) if integers else values(graph, weight, encoding)
        rows = _in_onnx_order(graph, stored, module)  # (4P, K)
        inputs.append(
            graph.op("Unsqueeze", graph.op("Transpose", rows, perm=[1, 0]) if integers else rows, graph.ints(0))
        )
    both = [_in_onnx_order(graph, _lstm_bias(graph, layer, module, name), module) for name in _LSTM_BIASES]
    inputs.append(graph.op("Reshape", graph.op("Concat", *both, axis=0), graph.ints(1, -1)))
    inputs.append(graph.op("Cast", steps[0], to=TensorProto.INT32) if steps else "")
    if not integers:
        every, hidden, cell = graph.ops("LSTM", *inputs, *before, outputs=3, hidden_size=module.hidden_size)
        return _states(graph, every, hidden, cell, len(rest))
    inputs += [*(before or ["", ""]), ""]  # states before, and no peepholes
    for weight in weights:
        scale = graph.op("Expand", add_scale(graph, weight), graph.ints(gates, 1))
        no_zeros = graph.op("Expand", graph.number(np.int8(0)), graph.ints(1, gates))
        inputs += [graph.op("Reshape", _in_onnx_order(graph, scale, module), graph.ints(1, -1)), no_zeros]
    kind, width = "DynamicQuantizeLSTM", module.hidden_size
    every, hidden, cell = graph.ops(kind, *inputs, outputs=3, domain=MICROSOFT, hidden_size=width)
    return _states(graph, every, hidden, cell, len(rest))


def _states(graph: Graph, every: str, hidden: str, cell: str, given: int) -> str:
    """ONNX's every (U, 1, N, P), hidden and cell (1, N, P) -> what `_lstm` gives for so many inputs beside x."""
    if given == 2:
        return graph.op("Concat", hidden, cell, axis=0)
    if given == 1:
        return graph.op("Squeeze", hidden, graph.ints(0))
    return graph.op("Transpose", graph.op("Squeeze", every, graph.ints(1)), perm=[1, 0, 2])


def _in_onnx_order(graph: Graph, x: str, module: nn.LSTM) -> str:
    """Rows (4P, ...) of torch's gates (input, forget, candidate, output) in ONNX's order (input, output, forget, cell).

    The result has two dimensions.
    """
    by_gate = graph.op("Reshape", x, graph.ints(4, module.hidden_size, -1))
    turned = graph.op("Gather", by_gate, graph.ints(0, 3, 1, 2), axis=0)
    return graph.op("Reshape", turned, graph.ints(4 * module.hidden_size, -1))


def _lstm_bias(graph: Graph, layer: str, module: nn.LSTM, name: str) -> str:
    bias = getattr(module, name).detach() if module.bias else torch.zeros(4 * module.hidden_size)
    return graph.parameter(f"{layer}.{name}", bias.numpy())


def _norm(graph: Graph, layer: str, module: MaskedBatchNorm, x: str) -> str:
    """x (N, T, D) times a scale plus an offset: two vectors in 32 bits take the place of four in 16.

    Written out, 1 / sqrt(variance) times a gain lets ONNX Runtime 1.17 crash when it loads the file (DivMulFusion).
    """
    names = ("running_mean", "running_var", *(("weight", "bias") if module.affine else ()))
    mean, variance, *affine = (
        torch.from_numpy(graph.as_stored(f"{layer}.{name}", getattr(module, name).detach().numpy())) for name in names
    )
    gain, bias = affine or (torch.ones(()), torch.zeros(()))
    scale = torch.rsqrt(variance + module.eps) * gain
    scaled = graph.op("Mul", x, graph.constant(f"{layer}.scale", scale.numpy()))
    return graph.op("Add", scaled, graph.constant(f"{layer}.offset", (bias - mean * scale).numpy()))


def _with_bias(graph: Graph, x: str, layer: str, module: nn.Linear | nn.Conv1d | nn.Conv2d) -> str:
    """x (..., N) plus the bias of a module, if it has one."""
    bias = _bias(graph, layer, module)
    return graph.op("Add", x, bias) if bias else x


def _bias(graph: Graph, layer: str, module: nn.Linear | nn.Conv1d | nn.Conv2d, *shape: int) -> str:
    """The bias of a module, (N,) or in this shape; no name if it has none."""
    if module.bias is None:
        return ""
    bias = module.bias.detach().numpy()
    return graph.parameter(f"{layer}.bias", bias.reshape(shape) if shape else bias)
