"""Each kind of layer in each encoding, alone, against numpy and torch."""

import numpy as np
import pytest
import torch
from torch import nn

pytest.importorskip("onnx", reason="onnx is not installed: pip install -e '.[export]'")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: pip install -e '.[export]'")

import onnx

from nibble.export.onnx.builder import Graph
from nibble.export.onnx.layers import add_layer
from nibble.export.onnx.weights import weight_of
from nibble.export.options import Encoding
from nibble.inference.onnx_session import session
from nibble.model.padding import MaskedBatchNorm
from nibble.quant.convert import freeze, prepare, set_precision
from nibble.quant.numerics import activation_dims
from nibble.quant.spec import (
    ActivationGranularity,
    ActivationSpec,
    Precision,
    QuantConfig,
    Range,
    Rule,
    WeightGranularity,
    WeightSpec,
)

INTEGERS = [Encoding.w8a8, Encoding.w4a8]
SPECS = {
    "int4": WeightSpec(4),
    "int4 full range": WeightSpec(4, range=Range.full),
    "int4 asymmetric": WeightSpec(4, symmetric=False),
    "int4 one scale": WeightSpec(4, granularity=WeightGranularity.per_tensor),
    "int4 in groups of 16": WeightSpec(4, group_size=16),
    "int4 asymmetric in groups of 16": WeightSpec(4, group_size=16, symmetric=False),
    "int4 in groups of 8": WeightSpec(4, group_size=8),
    "ternary": WeightSpec(2),
    "sign": WeightSpec(1),
    "int8": WeightSpec(8),
    "int6 asymmetric": WeightSpec(6, symmetric=False),
}


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


ACTIVATIONS = {
    "a token": ActivationSpec(),
    "an utterance": ActivationSpec(granularity=ActivationGranularity.per_utterance),
    "full range": ActivationSpec(range=Range.full),
    "half step": ActivationSpec(range=Range.half_step),
    "4 bits": ActivationSpec(4),
    "4 bits, half step, an utterance": ActivationSpec(4, ActivationGranularity.per_utterance, Range.half_step),
    "static": ActivationSpec(static=True),
    "4 bits, static": ActivationSpec(4, static=True),
}


def frozen(
    module: nn.Module, spec: WeightSpec | None, activation: ActivationSpec | None = ACTIVATIONS["a token"]
) -> nn.Module:
    """A layer with integer weights, or in float."""
    model = nn.Sequential(module).requires_grad_(False).eval()
    if spec is not None:
        activation = None if isinstance(module, nn.Embedding) else activation
        prepare(model, QuantConfig("test", [Rule(weight=spec, activation=activation)]))
        set_precision(model, Precision.rules)
        freeze(model)
    return model[0]


def run(layer: nn.Module, encoding: Encoding, *inputs: torch.Tensor) -> np.ndarray:
    """What the layer's nodes give in ONNX Runtime, whichever opset they are written for."""
    oldest, newest = (run_at(opset, layer, encoding, *inputs) for opset in (17, 21))
    np.testing.assert_allclose(oldest, newest, rtol=1e-5, atol=1e-6)  # a scale may be fused with another
    return newest


def run_at(opset: int, layer: nn.Module, encoding: Encoding, *inputs: torch.Tensor) -> np.ndarray:
    graph = Graph(half=False, opset=opset)
    names = [f"input{index}" for index in range(len(inputs))]
    output = add_layer(graph, "layer", layer, names, encoding)
    arrays = [tensor.numpy() for tensor in inputs]
    types = [onnx.helper.np_dtype_to_tensor_dtype(array.dtype) for array in arrays]
    body = onnx.helper.make_graph(
        graph.nodes,
        "test",
        [onnx.helper.make_tensor_value_info(*one) for one in zip(names, types, [None] * len(names), strict=True)],
        [onnx.helper.make_tensor_value_info(output, onnx.TensorProto.FLOAT, None)],
        list(graph.constants.values()),
    )
    opsets = [onnx.helper.make_opsetid("", opset), onnx.helper.make_opsetid("com.microsoft", 1)]
    model = onnx.helper.make_model(body, opset_imports=opsets, ir_version=10)
    return session(model.SerializeToString(), 1).run(None, dict(zip(names, arrays, strict=True)))[0]


def eight_bits(x: np.ndarray) -> np.ndarray:
    """x as DynamicQuantizeLinear represents it: uint8 between its least and largest value, zero among them."""
    low, high = min(x.min(), 0), max(x.max(), 0)
    scale = np.float32((high - low) / 255)
    zero = np.clip(np.rint(-low / scale), 0, 255)
    return (np.clip(np.rint(x / scale) + zero, 0, 255) - zero) * scale


def reference(layer: nn.Module, encoding: Encoding, x: torch.Tensor) -> np.ndarray:
    """x (..., K) times the values of the weight, in float64; what torch computes where that is on integers."""
    weight = weight_of(layer, "layer")
    if encoding in INTEGERS and weight.integers is not None:
        return layer(x).numpy()
    return x.numpy().astype(np.float64) @ weight.values.double().numpy().T + layer.bias.double().numpy()


@pytest.mark.parametrize("encoding", list(Encoding))
@pytest.mark.parametrize("spec", [None, *SPECS.values()], ids=["float", *SPECS])
def test_linear(spec: WeightSpec | None, encoding: Encoding) -> None:
    layer = frozen(nn.Linear(48, 20), spec)
    x = torch.randn(3, 7, 48)
    found = run(layer, encoding, x)
    assert found.shape == (3, 7, 20)
    np.testing.assert_allclose(found, reference(layer, encoding, x), atol=2e-5)


def test_a_product_whose_inputs_are_no_multiple_of_a_block() -> None:
    layer, x = frozen(nn.Linear(37, 5), WeightSpec(4, symmetric=False)), torch.randn(4, 37)
    for encoding in Encoding:
        np.testing.assert_allclose(run(layer, encoding, x), reference(layer, encoding, x), atol=2e-5)


LAYERS = {
    "linear": (lambda: nn.Linear(48, 20), (3, 7, 48)),
    "linear, rows": (lambda: nn.Linear(48, 20, bias=False), (5, 48)),
    "convolution": (lambda: nn.Conv2d(3, 8, (3, 2), stride=2), (2, 3, 9, 11)),
    "depthwise": (lambda: nn.Conv1d(6, 6, 5, padding=2, groups=6), (2, 6, 9)),
    "depthwise, two dimensions": (lambda: nn.Conv2d(6, 6, 3, padding=1, groups=6, bias=False), (2, 6, 5, 4)),
}


@pytest.mark.parametrize("encoding", INTEGERS)
@pytest.mark.parametrize("activation", ACTIVATIONS.values(), ids=ACTIVATIONS)
@pytest.mark.parametrize("kind", LAYERS)
def test_sums_of_integers_are_those_of_torch(kind: str, activation: ActivationSpec, encoding: Encoding) -> None:
    make, shape = LAYERS[kind]
    layer, x = frozen(make(), WeightSpec(4), activation), 3 * torch.randn(shape)
    x[0, 0] = 0  # a row of padding
    if activation.static:
        layer.activation_max.fill_(4.3)  # some values are beyond
    expected = layer(x)
    dims = activation_dims(activation, x.dim()) if isinstance(layer, nn.Linear) else tuple(range(1, x.dim()))
    codes, x_scale, _ = layer.quantized_input(x, dims).quantized
    assert codes.int().abs().max() == (128 if activation.range is Range.full else 127 if activation.bits == 8 else 7)
    w_scale = layer.quantized_weight().scale.flatten()
    step = x_scale * (w_scale if isinstance(layer, nn.Linear) else w_scale.view(-1, *(1,) * (x.dim() - 2)))
    difference = (torch.from_numpy(run(layer, encoding, x)) - expected) / step
    assert difference.abs().max() < 0.1  # a sum is off by a whole step or not at all


@pytest.mark.parametrize("encoding", INTEGERS)
@pytest.mark.parametrize("name", ["int4", "int4 in groups of 16"])
def test_activations_that_were_in_float_are_quantized_as_they_come(name: str, encoding: Encoding) -> None:
    layer, x = frozen(nn.Linear(48, 20), SPECS[name], activation=None), torch.randn(3, 7, 48)
    values = weight_of(layer, "layer").values.double().numpy()
    expected = eight_bits(x.numpy()).astype(np.float64) @ values.T + layer.bias.double().numpy()
    np.testing.assert_allclose(run(layer, encoding, x), expected, atol=2e-5)


@pytest.mark.parametrize("encoding", INTEGERS)
def test_an_utterance_does_not_depend_on_its_neighbours(encoding: Encoding) -> None:
    for name, (make, shape) in LAYERS.items():
        layer, x = frozen(make(), WeightSpec(4), ACTIVATIONS["an utterance"]), torch.randn(shape)
        np.testing.assert_array_equal(run(layer, encoding, x)[:1], run(layer, encoding, x[:1]), err_msg=name)


@pytest.mark.parametrize("encoding", list(Encoding))
@pytest.mark.parametrize("spec", [None, SPECS["int4"], SPECS["int4 asymmetric"], SPECS["int8"]])
@pytest.mark.parametrize("kind", ["convolution", "depthwise", "depthwise, two dimensions"])
def test_convolutions(kind: str, spec: WeightSpec | None, encoding: Encoding) -> None:
    make, shape = LAYERS[kind]
    layer, x = frozen(make(), spec), torch.randn(shape)
    if spec is None or encoding in INTEGERS:
        expected = layer(x)
    else:
        convolution = nn.functional.conv1d if x.dim() == 3 else nn.functional.conv2d
        moves = layer.stride, layer.padding, layer.dilation, layer.groups
        expected = convolution(x, weight_of(layer, "layer").values, layer.bias, *moves)
    np.testing.assert_allclose(run(layer, encoding, x), expected.numpy(), atol=2e-5)


@pytest.mark.parametrize("encoding", list(Encoding))
@pytest.mark.parametrize("name", ["int4", "int4 in groups of 8", "int8"])
def test_an_embedding(name: str, encoding: Encoding) -> None:
    layer, labels = frozen(nn.Embedding(7, 24), SPECS[name]), torch.tensor([[0, 6], [3, 3]])
    np.testing.assert_array_equal(run(layer, encoding, labels), layer(labels).numpy())


@pytest.mark.parametrize("encoding", list(Encoding))
@pytest.mark.parametrize("name", ["int4", "int4 asymmetric", "int4 one scale", "int4 in groups of 8", "int8"])
@pytest.mark.parametrize("bias", [True, False])
def test_an_lstm_gives_the_state_after_so_many_steps(name: str, bias: bool, encoding: Encoding) -> None:
    layer, x = frozen(nn.LSTM(16, 24, batch_first=True, bias=bias), SPECS[name]), torch.randn(3, 6, 16)
    steps = torch.tensor([6, 1, 4])
    float_layer = nn.LSTM(16, 24, batch_first=True, bias=bias)
    with torch.no_grad():
        for weight in ("weight_ih_l0", "weight_hh_l0"):
            getattr(float_layer, weight).copy_(weight_of(layer, "layer", weight).values)
        for one in ("bias_ih_l0", "bias_hh_l0") if bias else ():
            getattr(float_layer, one).copy_(getattr(layer, one))
        expected = float_layer(x)[0][torch.arange(3), steps - 1]
    tolerance = 0.02 if encoding in INTEGERS and "groups" not in name else 1e-6
    np.testing.assert_allclose(run(layer, encoding, x, steps), expected.numpy(), atol=tolerance)


@pytest.mark.parametrize("affine", [True, False])
def test_a_batch_norm_is_a_scale_and_an_offset(affine: bool) -> None:
    norm = MaskedBatchNorm(6, affine=affine).eval().requires_grad_(False)
    for tensor in norm.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand_like(tensor) + 0.5)
    x, valid = 5 * torch.randn(2, 4, 6), torch.ones(2, 4, 1, dtype=torch.bool)
    np.testing.assert_allclose(run(norm, Encoding.w4a8, x, valid), norm(x, valid).numpy(), atol=1e-5)


def test_weights_that_no_rule_names_are_floats_in_every_encoding() -> None:
    layer, x = frozen(nn.Linear(8, 3), None), torch.randn(2, 8)
    for encoding in Encoding:
        np.testing.assert_allclose(run(layer, encoding, x), layer(x).numpy(), atol=1e-6)


def test_a_layer_without_nodes_of_its_own() -> None:
    with pytest.raises(TypeError, match="layer: no ONNX nodes for Bilinear"):
        add_layer(Graph(half=False, opset=17), "layer", nn.Bilinear(1, 1, 1), ["x", "y"], Encoding.float)
