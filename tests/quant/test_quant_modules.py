"""The quantized layers: values, gradients, and that a quantized layer is its float layer plus rounding."""

import copy

import pytest
import torch
import torch.nn.functional as F
from rounded import by_rule, first, gradients
from torch import Tensor, nn

from nibble.errors import UserError
from nibble.kernels import ops
from nibble.quant.convert import freeze, prepare, set_precision
from nibble.quant.modules import QuantConv1d, QuantLinear
from nibble.quant.numerics import quantize_activation, quantize_weight
from nibble.quant.quantized_type import quantized_type
from nibble.quant.spec import (
    ActivationGranularity,
    ActivationSpec,
    Arithmetic,
    Precision,
    QuantConfig,
    Range,
    Rule,
    WeightGranularity,
    WeightSpec,
)
from nibble.quant.tensor import QuantizedTensor

ARITHMETICS = [Arithmetic.fake, Arithmetic.native]
PER_UTTERANCE = ActivationGranularity.per_utterance


class ShortConv(nn.Conv1d):
    """A depthwise convolution with a forward of its own, as a model may have for speed."""

    same_as_base = True

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x.unsqueeze(2), self.weight.unsqueeze(2), self.bias, padding=(0, 2), groups=self.groups)[
            :, :, 0
        ]


LAYERS = {
    "linear": (lambda: nn.Linear(12, 7), (3, 5, 12)),
    "linear without bias": (lambda: nn.Linear(12, 7, bias=False), (4, 12)),
    "linear on one row": (lambda: nn.Linear(12, 7), (12,)),
    "depthwise": (lambda: nn.Conv1d(6, 6, 5, padding=2, groups=6), (3, 6, 11)),
    "depthwise subclass": (lambda: ShortConv(6, 6, 5, padding=2, groups=6), (3, 6, 11)),
    "strided 1d": (lambda: nn.Conv1d(4, 6, 3, stride=2, padding=1), (3, 4, 11)),
    "1d, same padding": (lambda: nn.Conv1d(4, 6, 4, padding="same", dilation=2), (3, 4, 11)),
    "1d, circular": (lambda: nn.Conv1d(4, 6, 3, padding=2, padding_mode="circular"), (3, 4, 11)),
    "1d without batch": (lambda: nn.Conv1d(4, 6, 3), (4, 11)),
    "grouped 1d": (lambda: nn.Conv1d(6, 4, 3, groups=2, bias=False), (2, 6, 9)),
    "2d": (lambda: nn.Conv2d(2, 5, 3, stride=2), (3, 2, 9, 11)),
    "2d, reflected": (lambda: nn.Conv2d(2, 5, (3, 1), padding=(1, 0), padding_mode="reflect"), (3, 2, 5, 6)),
    "lstm": (lambda: nn.LSTM(6, 5, batch_first=True), (3, 4, 6)),
    "lstm without bias": (lambda: nn.LSTM(6, 5, batch_first=True, bias=False), (3, 4, 6)),
    "lstm without batch": (lambda: nn.LSTM(6, 5, batch_first=True), (4, 6)),
}


def quantized(
    layer: nn.Module,
    arithmetic: Arithmetic = Arithmetic.native,
    weight: WeightSpec | None = None,
    activation: ActivationSpec | None = None,
    blend: float = 1.0,
) -> nn.Module:
    """A quantized copy of a float layer at the precision of the rules; 8 bits unless told."""
    rule = Rule("**", weight or WeightSpec(8), activation or ActivationSpec(8))
    if isinstance(layer, nn.Embedding):
        rule.activation = None
    return by_rule(layer, rule, arithmetic, blend)


@pytest.fixture(params=LAYERS)
def layer_and_input(request):
    torch.manual_seed(0)
    make, shape = LAYERS[request.param]
    return make(), torch.randn(shape)


@pytest.mark.parametrize("arithmetic", ARITHMETICS)
def test_close_to_the_float_layer(layer_and_input, arithmetic):
    """At 8 bits values and gradients differ from the float layer's by a few percent of their size, not more."""
    layer, x = layer_and_input
    prepared = quantized(layer, arithmetic)
    expected, found = first(layer(x)), first(prepared(x))
    assert found.shape == expected.shape
    assert 0 < (found - expected).norm() < 0.03 * expected.norm()
    found_gradients = gradients(prepared, x)
    for name, gradient in gradients(layer, x).items():
        assert (found_gradients[name] - gradient).norm() < 0.05 * gradient.norm(), name


def test_fake_and_native_agree(layer_and_input):
    layer, x = layer_and_input
    fake, native = quantized(layer, Arithmetic.fake), quantized(layer, Arithmetic.native)
    torch.testing.assert_close(first(fake(x)), first(native(x)), rtol=1e-5, atol=1e-5)
    for one, other in zip(gradients(fake, x).values(), gradients(native, x).values(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["linear", "depthwise", "strided 1d", "grouped 1d", "2d"])
def test_fake_and_native_are_bit_equal_for_scales_of_a_power_of_two(name):
    """Every slice holds 7 or -7 at int4, so that each scale is 2^k and float arithmetic is exact."""
    make, shape = LAYERS[name]
    layer = make()
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        layer.weight.copy_(torch.randint(-7, 8, layer.weight.shape, generator=draw))
        layer.weight.view(len(layer.weight), -1)[:, 0] = 7
        layer.weight *= 2.0 ** torch.arange(len(layer.weight)).view(-1, *[1] * (layer.weight.dim() - 1))
        if layer.bias is not None:
            layer.bias.copy_(torch.arange(len(layer.bias)) / 4)
    x = torch.randint(-7, 8, shape, generator=draw) / 8
    x.view(-1, shape[-1])[:, 0] = -7 / 8
    spec = {"weight": WeightSpec(4), "activation": ActivationSpec(4)}
    fake, native = quantized(layer, Arithmetic.fake, **spec), quantized(layer, Arithmetic.native, **spec)
    assert torch.equal(fake(x), native(x))
    assert torch.equal(native(x), layer(x))  # every value is its code times its scale: nothing is rounded


@pytest.mark.parametrize("arithmetic", ARITHMETICS)
@pytest.mark.parametrize("precision", [Precision.int8, Precision.rules])
@pytest.mark.parametrize("range_", list(Range))
def test_frozen_is_bit_equal(layer_and_input, arithmetic, precision, range_):
    layer, x = layer_and_input
    trained = quantized(layer, arithmetic, WeightSpec(4, range=range_), ActivationSpec(8, range=range_))
    set_precision(trained, precision)
    trained.eval()
    frozen = copy.deepcopy(trained)
    freeze(frozen)
    assert not [name for name, _ in frozen.named_parameters() if "weight" in name]
    assert {codes.dtype for codes, _, _ in frozen.frozen_weights().values()} == {torch.int8}
    assert {scale.dtype for _, scale, _ in frozen.frozen_weights().values()} == {torch.float16}
    assert torch.equal(first(frozen(x)), first(trained(x)))
    with torch.no_grad():
        assert torch.equal(first(frozen(x)), first(trained(x)))
        assert torch.equal(first(frozen(x)), first(trained(x))), "the second pass uses the kept integers"


@pytest.mark.parametrize("arithmetic", ARITHMETICS)
def test_linear_gradients_by_hand(arithmetic):
    """w = [3.5, 1.3] is 4-bit codes [7, 3] at scale 0.5; x = [2, -0.9] is 2-bit codes [1, 0] at scale 2.

    dy = 4: dx = dy w~ = 4 [3.5, 1.5], dw = dy x~ = 4 [2, 0], db = dy.
    """
    layer = nn.Linear(2, 1)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[3.5, 1.3]]))
        layer.bias.fill_(0.25)
    layer = quantized(layer, arithmetic, WeightSpec(4), ActivationSpec(2))
    x = torch.tensor([[2.0, -0.9]], requires_grad=True)
    y = layer(x)
    assert y.tolist() == [[7.25]]
    y.backward(torch.tensor([[4.0]]))
    assert x.grad.tolist() == [[14.0, 6.0]]
    assert layer.weight.grad.tolist() == [[8.0, 0.0]]
    assert layer.bias.grad.tolist() == [4.0]


@pytest.mark.parametrize("arithmetic", ARITHMETICS)
def test_convolution_gradients_by_hand(arithmetic):
    """w = [7, 2.6] is [7, 3] at scale 1; x = [1, 0.2, -1] is [1, 0, -1] at scale 1 (2 bits), one scale for all.

    y = [7 * 1 + 3 * 0, 7 * 0 + 3 * -1] = [7, -3]. With dy = [1, 10]: dx = [7, 3 + 70, 30], dw = [1 + 0, 0 - 10].
    """
    layer = nn.Conv1d(1, 1, 2, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[[7.0, 2.6]]]))
    layer = quantized(layer, arithmetic, WeightSpec(4), ActivationSpec(2))
    x = torch.tensor([[[1.0, 0.2, -1.0]]], requires_grad=True)
    y = layer(x)
    assert y.tolist() == [[[7.0, -3.0]]]
    y.backward(torch.tensor([[[1.0, 10.0]]]))
    assert x.grad.tolist() == [[[7.0, 73.0, 30.0]]]
    assert layer.weight.grad.tolist() == [[[1.0, -10.0]]]


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("bias", [True, False])
def test_a_first_convolution_has_the_gradients_of_fake_arithmetic(channels, bias):
    """The input, features, needs no gradient."""
    torch.manual_seed(0)
    layer = nn.Conv2d(channels, 4, (3, 2), stride=(2, 1), padding=(1, 0), dilation=(1, 2), bias=bias)
    x = torch.randn(2, channels, 9, 8)
    found = []
    for arithmetic in ARITHMETICS:
        one = quantized(layer, arithmetic)
        out = one(x)
        out.backward(torch.linspace(-1, 1, out.numel()).view_as(out))
        found.append([parameter.grad for parameter in one.parameters()])
    torch.testing.assert_close(*found, rtol=1e-5, atol=1e-5)


def test_embedding_by_hand():
    """One scale a row; the gradient of a looked-up row goes to that row, whatever it was rounded to."""
    layer = nn.Embedding(3, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, 0.6], [7.0, 2.6], [0.0, 0.0]]))
    layer = quantized(layer, weight=WeightSpec(4))
    labels = torch.tensor([[1, 1, 2]])
    out = layer(labels)
    assert out.tolist() == [[[7.0, 3.0], [7.0, 3.0], [0.0, 0.0]]]
    out.backward(torch.ones_like(out))
    assert layer.weight.grad.tolist() == [[0.0, 0.0], [2.0, 2.0], [1.0, 1.0]]
    with torch.no_grad():
        assert torch.equal(layer.eval()(labels), out)
    freeze(layer)
    assert torch.equal(layer(labels), out)


@pytest.mark.parametrize("spec", [WeightSpec(4), WeightSpec(4, WeightGranularity.per_tensor)])
def test_frozen_embedding_is_bit_equal(spec):
    layer = quantized(nn.Embedding(9, 5), weight=spec).eval()
    labels = torch.randint(0, 9, (2, 3))
    expected = layer(labels)
    freeze(layer)
    assert torch.equal(layer(labels), expected)


def test_lstm_matches_torch_step_by_step():
    """Going one step at a time with the state gives what going all at once gives."""
    torch.manual_seed(0)
    layer = quantized(nn.LSTM(6, 5, batch_first=True)).eval()
    x = torch.randn(3, 4, 6)
    with torch.no_grad():
        out, last = layer(x)
        state = (torch.zeros(1, 3, 5), torch.zeros(1, 3, 5))
        for step in range(4):
            one, state = layer(x[:, step : step + 1], state)
            assert torch.equal(one[:, 0], out[:, step])
    assert torch.equal(state[0], last[0])
    assert torch.equal(state[1], last[1])


@pytest.mark.parametrize("used", ["all steps", "last hidden", "last cell"])
def test_lstm_gradients_of_states_and_weights(used):
    """Those of fake arithmetic, which autograd finds step by step; the outputs are those without gradients."""
    torch.manual_seed(0)
    layer, x = nn.LSTM(6, 5, batch_first=True), torch.randn(3, 4, 6)
    states = torch.randn(2, 1, 3, 5).unbind()
    found = []
    for arithmetic in ARITHMETICS:
        one = quantized(layer, arithmetic)
        inputs = [part.clone().requires_grad_() for part in (x, *states)]
        out, (hidden, cell) = one(inputs[0], tuple(inputs[1:]))
        with torch.no_grad():
            again, (last_hidden, last_cell) = one(x, states)
        assert torch.equal(again, out)
        assert torch.equal(last_hidden, hidden)
        assert torch.equal(last_cell, cell)
        kept = {"all steps": out, "last hidden": hidden, "last cell": cell}[used]
        slopes = torch.linspace(-1, 1, kept.numel()).view_as(kept)
        found.append(torch.autograd.grad(kept, [*inputs, *one.parameters()], slopes))
    torch.testing.assert_close(*found, rtol=1e-5, atol=1e-6)


def test_weight_on_a_ramp():
    """w = [3.5, 1.3] is [3.5, 1.5] quantized, [3.5, 1.35] a quarter of the way; the input is quantized all along."""
    layer = nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[3.5, 1.3]]))
    x = torch.tensor([[2.0, 1.9]], requires_grad=True)
    for blend, value in [(0.0, 1.3), (0.25, 1.35), (1.0, 1.5)]:
        ramped = quantized(layer, Arithmetic.native, WeightSpec(4), ActivationSpec(2), blend)
        assert ramped.native == (blend == 1)
        y = ramped(x)
        torch.testing.assert_close(y, torch.tensor([[2 * 3.5 + 2 * value]]))
        y.backward()
        assert ramped.weight.grad.tolist() == [[2.0, 2.0]]


@pytest.mark.parametrize("name", ["linear", "depthwise", "2d", "lstm"])
@pytest.mark.parametrize("granularity", list(ActivationGranularity))
@pytest.mark.parametrize("arithmetic", ARITHMETICS)
def test_an_utterance_does_not_depend_on_its_neighbours(name, granularity, arithmetic):
    make, shape = LAYERS[name]
    torch.manual_seed(0)
    layer = quantized(make(), arithmetic, activation=ActivationSpec(8, granularity)).eval()
    x = torch.randn(shape)
    x[1] *= 100
    together = first(layer(x))
    for index in range(shape[0]):
        alone = first(layer(x[index : index + 1]))[0]
        torch.testing.assert_close(alone, together[index], rtol=1e-5, atol=1e-5)


def test_per_utterance_scales_of_a_linear():
    layer = quantized(nn.Linear(2, 3), activation=ActivationSpec(8, PER_UTTERANCE))
    x = torch.tensor([[[1.0, 2.0], [127.0, 0.0]], [[0.0, 1.27], [0.0, 0.0]]])
    codes = torch.tensor([[[1.0, 2.0], [127.0, 0.0]], [[0.0, 127.0], [0.0, 0.0]]])
    scale = torch.tensor([1.0, 0.01]).view(2, 1, 1)
    expected = F.linear(codes * scale, layer.weight_source().values().detach(), layer.bias)
    torch.testing.assert_close(layer(x), expected)


@pytest.mark.parametrize("name", ["linear", "depthwise", "2d"])
@pytest.mark.parametrize("arithmetic", ARITHMETICS)
def test_empty_batches_and_odd_layouts(name, arithmetic):
    make, shape = LAYERS[name]
    layer = make()
    prepared = quantized(layer, arithmetic)
    empty = torch.zeros(0, *shape[1:], requires_grad=True)
    out = prepared(empty)
    assert out.shape == layer(empty).shape
    out.sum().backward()
    assert not prepared.weight.grad.any()
    x = torch.randn(shape)
    strided = x.transpose(-1, -2).contiguous().transpose(-1, -2)
    torch.testing.assert_close(prepared(strided), prepared(x), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("arithmetic", ARITHMETICS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_modules(layer_and_input, arithmetic, dtype):
    layer, x = layer_and_input
    layer, x = layer.to(dtype), x.to(dtype)
    prepared = quantized(layer, arithmetic)
    out = first(prepared(x))
    assert out.dtype == dtype
    for name, gradient in gradients(prepared, x).items():
        assert gradient.dtype == dtype, name


@pytest.mark.parametrize("arithmetic", ARITHMETICS)
@pytest.mark.parametrize("name", ["linear", "depthwise", "2d", "lstm"])
def test_autocast(name, arithmetic):
    """The result has autocast's type, as a float layer's; inside, codes times scales are not rounded to bfloat16."""
    make, shape = LAYERS[name]
    torch.manual_seed(0)
    layer = quantized(make(), arithmetic)
    x = torch.randn(shape)
    expected = first(layer(x))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = first(layer(x))
    assert out.dtype == torch.bfloat16
    assert torch.equal(out, expected.to(torch.bfloat16))
    out.float().sum().backward()
    assert all(parameter.grad.dtype == torch.float32 for parameter in layer.parameters())


def test_weights_only():
    """No activation spec: the input stays in float, and so does the product."""
    layer = nn.Linear(4, 3)
    prepare(layer, QuantConfig("w4", [Rule("**", WeightSpec(4))]))
    set_precision(layer, Precision.rules)
    x = torch.randn(2, 4)
    codes, scale, _ = quantize_weight(layer.weight, WeightSpec(4), "layer")
    assert torch.equal(layer(x), F.linear(x, QuantizedTensor(codes, scale).dequantize(), layer.bias))


def test_activations_only():
    layer = nn.Linear(4, 3)
    prepare(layer, QuantConfig("a8", [Rule("**", None, ActivationSpec(8))]))
    set_precision(layer, Precision.rules)
    x = torch.randn(2, 4)
    codes, scale, _ = quantize_activation(x, (1,), ActivationSpec(8), "layer")
    assert torch.equal(layer(x), F.linear(QuantizedTensor(codes, scale).dequantize(), layer.weight, layer.bias))
    freeze(layer)
    assert layer.frozen_weights() == {}
    assert isinstance(layer.weight, nn.Parameter)


def test_kept_integers_follow_the_weight():
    """In evaluation the integers are kept between calls, and made anew after any change."""
    layer = quantized(nn.Linear(3, 2)).eval()
    x = torch.randn(4, 3)
    with torch.no_grad():
        before = layer(x)
        assert layer.quantized_weight()[0] is layer.quantized_weight()[0]
        layer.weight.add_(1.0)
        assert not torch.equal(layer(x), before)
        layer.load_state_dict({"weight": layer.weight - 1.0, "bias": layer.bias})
        torch.testing.assert_close(layer(x), before, rtol=0.1, atol=0.1)
        layer.weight.data += 1.0  # does not count as a change, but going back to training does
        layer.train()
        layer.eval()
        assert not torch.equal(layer(x), before)
    with torch.inference_mode():
        layer(x)
    layer(x).sum().backward()


@pytest.mark.parametrize(
    ("bits", "symmetric", "nibbles"), [(4, True, True), (2, True, True), (8, True, False), (4, False, False)]
)
def test_frozen_weights_of_four_bits_are_multiplied_packed(monkeypatch, bits, symmetric, nibbles):
    """Two codes a byte; asymmetric codes, less their zero point, may need five bits."""
    called: list[str] = []
    for name in ("linear_w4a8", "linear_w8a8"):
        product = getattr(ops, name)
        monkeypatch.setattr(
            ops, name, lambda *given, name=name, product=product: called.append(name) or product(*given)
        )
    layer = quantized(nn.Linear(7, 5), Arithmetic.native, WeightSpec(bits, symmetric=symmetric)).eval()
    x = torch.randn(3, 7)
    with torch.no_grad():
        before = layer(x)
        freeze(layer)
        assert torch.equal(layer(x), before)
        layer.weight_codes[0] = 1  # as loading other weights does
        assert not torch.equal(layer(x), before), "packed anew"
    assert called == ["linear_w8a8"] + ["linear_w4a8" if nibbles else "linear_w8a8"] * 2


@pytest.mark.parametrize(("make", "shape"), [LAYERS["linear"], LAYERS["lstm"]])
@pytest.mark.parametrize("granularity", list(WeightGranularity))
def test_frozen_weights_of_four_bits_alone_are_multiplied_packed(monkeypatch, make, shape, granularity):
    torch.manual_seed(0)
    layer, called = make(), []
    prepare(layer, QuantConfig("test", [Rule("**", WeightSpec(4, granularity))]))
    set_precision(layer.eval(), Precision.rules)
    product = ops.linear_w4a16
    monkeypatch.setattr(ops, "linear_w4a16", lambda *given: called.append(1) or product(*given))
    x = torch.randn(shape)
    expected = gradients(layer, x)["input"]
    before = first(layer(x))
    assert not called
    freeze(layer)
    torch.testing.assert_close(first(layer(x)), before)
    assert called
    torch.testing.assert_close(gradients(layer, x)["input"], expected)
    assert first(layer(x.bfloat16())).dtype == torch.bfloat16


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("arithmetic", ARITHMETICS)
def test_bad_input_names_the_layer(bad, arithmetic):
    model = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 3))
    prepare(model, QuantConfig("test", [Rule("2", WeightSpec(8), ActivationSpec(8))], arithmetic))
    set_precision(model, Precision.rules)
    with pytest.raises(UserError, match=r"^2: NaN or infinity in the input"):
        model(torch.full((1, 3), bad))


def test_packed_sequences_are_refused():
    layer = quantized(nn.LSTM(6, 5, batch_first=True))
    packed = nn.utils.rnn.pack_padded_sequence(torch.randn(2, 3, 6), [3, 2], batch_first=True)
    with pytest.raises(UserError, match="padded"):
        layer(packed)


def test_types():
    """A subclass that computes as its base does keeps its own forward in float alone."""
    assert quantized_type(nn.Linear) is QuantLinear
    short = quantized_type(ShortConv)
    assert short is quantized_type(ShortConv)
    assert issubclass(short, QuantConv1d)
    assert issubclass(short, ShortConv)
    assert quantized_type(nn.LayerNorm) is None
    assert quantized_type(nn.modules.linear.NonDynamicallyQuantizableLinear) is None


def test_float_precision_is_the_float_layer(layer_and_input):
    layer, x = layer_and_input
    prepared = quantized(layer)
    set_precision(prepared, Precision.float)
    assert torch.equal(first(prepared(x)), first(layer(x)))


@pytest.mark.parametrize("blend", [0.5, 1.0])
@pytest.mark.parametrize("arithmetic", list(Arithmetic))
def test_a_result_may_be_changed_in_place(layer_and_input, arithmetic, blend):
    """As SpecAugment of transformers changes it. torch forbids that for a view which an autograd function returns."""
    layer, x = layer_and_input
    prepared = quantized(layer, arithmetic, blend=blend)
    x = x.clone().requires_grad_()
    out = first(prepared(x))
    out[..., 0] = 1.0
    out.mul_(2).sum().backward()
    assert x.grad.isfinite().all()


@pytest.mark.gpu
def test_cuda_matches_cpu(layer_and_input):
    layer, x = layer_and_input
    for arithmetic in ARITHMETICS:
        prepared = quantized(layer, arithmetic)
        expected, expected_gradients = first(prepared(x)), gradients(prepared, x)
        prepared.zero_grad()
        prepared.cuda()
        with torch.backends.cudnn.flags(allow_tf32=False):
            torch.testing.assert_close(first(prepared(x.cuda())).cpu(), expected, rtol=1e-4, atol=1e-4)
            for name, gradient in gradients(prepared, x.cuda()).items():
                torch.testing.assert_close(gradient.cpu(), expected_gradients[name], rtol=1e-3, atol=1e-3)
