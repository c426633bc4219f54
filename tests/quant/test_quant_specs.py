"""Every way to quantize a layer: native and fake agree in values and gradients, and frozen is what was trained."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rounded import by_rule, first, gradients
from torch import nn

from nibble.errors import UserError
from nibble.kernels import ops
from nibble.quant.convert import freeze, prepare, prune, set_precision
from nibble.quant.numerics import quantize_weight
from nibble.quant.packing import pack, unpack
from nibble.quant.rules import assign
from nibble.quant.spec import (
    ActivationGranularity,
    ActivationSpec,
    Arithmetic,
    Precision,
    QuantConfig,
    Range,
    Rule,
    Sparsity,
    WeightGranularity,
    WeightScale,
    WeightSpec,
)
from nibble.quant.tensor import QuantizedTensor

W, A = WeightSpec, ActivationSpec
RULES = {
    "int8": Rule("**", W(8), A(8)),
    "int8 per tensor": Rule("**", W(8, WeightGranularity.per_tensor), A(8)),
    "int8 per utterance": Rule("**", W(8), A(8, ActivationGranularity.per_utterance)),
    "int5": Rule("**", W(5), A(8)),
    "int4": Rule("**", W(4), A(8)),
    "int4a4": Rule("**", W(4), A(4)),
    "int4 full": Rule("**", W(4, range=Range.full), A(8, range=Range.full)),
    "int4 half step": Rule("**", W(4, range=Range.half_step), A(8, range=Range.half_step)),
    "int4 asymmetric": Rule("**", W(4, symmetric=False), A(8)),
    "int7 asymmetric": Rule("**", W(7, symmetric=False), A(8)),
    "int2 asymmetric": Rule("**", W(2, symmetric=False), A(8)),
    "int4 search": Rule("**", W(4, scale=WeightScale.search), A(8)),
    "int4 learned": Rule("**", W(4, learned=True), A(8)),
    "int4 static": Rule("**", W(4), A(8, static=True)),
    "int4 2:4": Rule("**", W(4), A(8), Sparsity(2, 4)),
    "int3": Rule("**", W(3), A(8)),
    "int2": Rule("**", W(2), A(8)),
    "int2 mean": Rule("**", W(2, scale=WeightScale.mean), A(8)),
    "int2 learned": Rule("**", W(2, learned=True), A(8)),
    "int1": Rule("**", W(1), A(8)),
    "int1 learned": Rule("**", W(1, learned=True), A(8)),
    "int4 in groups": Rule("**", W(4, group_size=4), A(8)),
    "int4 in groups, asymmetric": Rule("**", W(4, group_size=4, symmetric=False), A(8)),
    "int4 in groups, learned": Rule("**", W(4, group_size=4, learned=True), A(8)),
}
LAYERS = {
    "linear": (lambda: nn.Linear(12, 7), (3, 5, 12)),
    "one row": (lambda: nn.Linear(12, 7, bias=False), (1, 12)),
    "depthwise": (lambda: nn.Conv1d(6, 6, 4, padding=2, groups=6), (3, 6, 11)),
    "1d": (lambda: nn.Conv1d(4, 6, 3, stride=2, padding=1), (3, 4, 11)),
    "2d": (lambda: nn.Conv2d(4, 5, 3, stride=2), (3, 4, 9, 11)),
    "lstm": (lambda: nn.LSTM(8, 4, batch_first=True), (3, 4, 8)),
}
CASES = [
    (layer, rule)
    for layer in LAYERS
    for rule in RULES
    if "groups" not in rule or layer in ("linear", "one row", "lstm")
]
cases = pytest.mark.parametrize(("layer_name", "rule_name"), CASES)


def quantized(layer: nn.Module, rule: Rule, arithmetic: Arithmetic = Arithmetic.native) -> nn.Module:
    """A quantized copy at the precision of the rules, pruned, its static scales far from the edge of the input."""
    layer = by_rule(layer, rule, arithmetic)
    prune(layer)
    with torch.no_grad():
        for name, tensor in (*layer.named_parameters(), *layer.named_buffers()):
            if name == "activation_max":
                tensor.fill_(1.3)
            if name.endswith("_log_scale"):
                tensor.copy_(torch.linspace(-0.4, 0.1, tensor.numel()))
    return layer.eval()


@pytest.fixture
def layer(layer_name):
    torch.manual_seed(0)
    return LAYERS[layer_name][0]()


@pytest.fixture
def x(layer_name):
    return torch.randn(LAYERS[layer_name][1], generator=torch.Generator().manual_seed(1))


@cases
def test_native_is_fake(layer, x, rule_name):
    native, fake = (quantized(layer, RULES[rule_name], how) for how in Arithmetic if how.value != "noise")
    torch.testing.assert_close(first(native(x)), first(fake(x)), rtol=1e-5, atol=1e-5)
    expected = gradients(fake, x)
    for name, gradient in gradients(native, x).items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-5, atol=1e-5, msg=name)


@cases
@pytest.mark.parametrize("arithmetic", [Arithmetic.fake, Arithmetic.native])
def test_frozen_is_what_was_trained(layer, x, rule_name, arithmetic):
    trained = quantized(layer, RULES[rule_name], arithmetic)
    frozen = copy.deepcopy(trained)
    freeze(frozen)
    assert not [name for name, _ in frozen.named_parameters() if "weight" in name]
    with torch.no_grad():
        assert torch.equal(first(frozen(x)), first(trained(x)))


@cases
def test_codes_survive_packing(layer, rule_name):
    rule = RULES[rule_name]
    frozen = quantized(layer, rule)
    freeze(frozen)
    for codes, _, zero in frozen.frozen_weights().values():
        stored = codes if zero is None else (codes.reshape(*zero.shape[:-1], -1) + zero).reshape(codes.shape)
        packed = pack(stored, rule.weight.bits, rule.sparsity)
        assert torch.equal(unpack(packed, rule.weight.bits, codes.shape, rule.sparsity), stored)


@pytest.mark.parametrize("rule_name", RULES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_types_layouts_and_empty_batches(rule_name, dtype):
    layer = quantized(nn.Linear(12, 7), RULES[rule_name]).to(dtype)
    x = torch.randn(12, 5, 3, dtype=dtype).permute(2, 1, 0)
    assert not x.is_contiguous()
    assert layer(x).dtype == dtype
    assert torch.equal(layer(x), layer(x.contiguous()))
    for rows in (0, 1, 17):
        assert layer(x.new_zeros(rows, 12)).shape == (rows, 7)
    gradients(layer, x.new_zeros(0, 12))


@pytest.mark.parametrize("rule_name", [name for name in RULES if "groups" not in name and "2:4" not in name])
@settings(deadline=None, max_examples=8)
@given(inputs=st.integers(1, 40), outputs=st.integers(1, 9), rows=st.integers(1, 18), seed=st.integers(0, 99))
def test_odd_sizes(rule_name, inputs, outputs, rows, seed):
    torch.manual_seed(seed)
    layer = nn.Linear(inputs, outputs)
    native, fake = (quantized(layer, RULES[rule_name], how) for how in (Arithmetic.native, Arithmetic.fake))
    x = torch.randn(rows, inputs)
    torch.testing.assert_close(native(x), fake(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("rule_name", RULES)
@pytest.mark.parametrize("zeros", ["weight", "input"])
def test_zeros_stay_zeros(rule_name, zeros):
    layer = nn.Linear(12, 7, bias=False)
    if zeros == "weight":
        nn.init.zeros_(layer.weight)
    x = torch.zeros(2, 12) if zeros == "input" else torch.randn(2, 12)
    for arithmetic in (Arithmetic.native, Arithmetic.fake):
        assert torch.equal(quantized(layer, RULES[rule_name], arithmetic)(x), torch.zeros(2, 7))


@pytest.mark.parametrize("rule_name", RULES)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("where", ["weight", "input"])
def test_what_is_not_finite_names_the_layer(rule_name, bad, where):
    model = nn.Sequential(nn.Linear(12, 12), nn.Linear(12, 7))
    prepared = quantized(model, RULES[rule_name])
    for module in prepared:
        if "activation_max" in module._buffers:
            module.activation_max.fill_(1.3)
    x = torch.zeros(2, 12)
    if where == "input":
        x[1, 3] = bad
    else:
        prepared[1].weight.data[2, 3] = bad
    with pytest.raises(UserError, match=f"^{0 if where == 'input' else 1}[.:].*NaN or infinity"):
        prepared(x)


@cases
def test_what_reaches_the_integer_product(layer, x, rule_name, monkeypatch):
    """Codes of one byte, from both sides; sums of four, rescaled at once where a row or an utterance has one scale."""
    native = quantized(layer, RULES[rule_name])
    seen = []

    def watch(name, weight_at, out_type):
        product = getattr(ops, name)

        def watched(*given):
            out = product(*given)
            seen.append((given[0].dtype, given[weight_at].dtype))
            assert out.dtype == out_type
            return out

        monkeypatch.setattr(ops, name, watched)

    watch("int_matmul", 1, torch.int32)
    watch("int_conv2d", 1, torch.int32)
    watch("linear_w8a8", 2, torch.float32)
    watch("conv2d_w8a8", 2, torch.float32)
    gradients(native.train(), x)
    native.eval()
    with torch.no_grad():
        native(x)
    assert len(seen) >= 2
    assert set(seen) == {(torch.int8, torch.int8)}


def test_asymmetric_by_hand():
    """From -1 to 14 in 16 codes of step 1: zero is the second of them."""
    weight = torch.tensor([[-1.0, 0.0, 2.0, 14.0]])
    codes, scale, zero = quantize_weight(weight, W(4, symmetric=False), "layer")
    assert scale.tolist() == [[1.0]]
    assert zero.tolist() == [[-7]]
    assert codes.tolist() == [[-1, 0, 2, 14]]
    assert torch.equal(QuantizedTensor(codes, scale).dequantize(), weight)


def test_a_slice_on_one_side_of_zero_still_has_a_zero():
    codes, scale, zero = quantize_weight(torch.tensor([[3.0, 15.0], [-15.0, -3.0]]), W(4, symmetric=False), "layer")
    assert zero.tolist() == [[-8], [7]]
    assert QuantizedTensor(codes, scale).dequantize().tolist() == [[3.0, 15.0], [-15.0, -3.0]]


def test_groups_by_hand():
    weight = torch.tensor([[7.0, -3.0, 0.7, 0.2]])
    codes, scale, _ = quantize_weight(weight, W(4, group_size=2), "layer")
    assert codes.tolist() == [[7, -3, 7, 2]]
    assert scale.shape == (1, 2, 1)
    torch.testing.assert_close(scale.flatten(), torch.tensor([1.0, 0.1]), rtol=1e-3, atol=0)


def test_signs_by_hand():
    codes, scale, _ = quantize_weight(torch.tensor([[-3.0, 0.0, 1.0]]), W(1), "layer")
    assert codes.tolist() == [[-1, 1, 1]]
    torch.testing.assert_close(scale, torch.tensor([[4 / 3]]), rtol=1e-3, atol=0)


@settings(deadline=None, max_examples=30)
@given(bits=st.integers(2, 6), seed=st.integers(0, 99))
def test_the_search_is_never_worse_than_absmax(bits, seed):
    weight = torch.randn(4, 33, generator=torch.Generator().manual_seed(seed)) ** 3
    errors = [
        (quantize_weight(weight, W(bits, scale=scale), "layer").dequantize() - weight).square().sum(1)
        for scale in (WeightScale.search, WeightScale.absmax)
    ]
    assert (errors[0] <= errors[1]).all()


def test_the_gradient_of_a_learned_scale_by_hand():
    """One channel, Q = 7, s = 1 x e^p = 1: inside the clip s (q - w / s), outside s q; over sqrt(4 x 7)."""
    layer = nn.Linear(4, 1, bias=False)
    layer.weight.data = torch.tensor([[14.0, 2.25, -0.5, 0.0]])
    prepare(layer, QuantConfig("test", [Rule("**", W(4, learned=True), A(8))], Arithmetic.fake))
    set_precision(layer, Precision.rules)
    layer.weight_log_scale.data.fill_(-torch.tensor(2.0).log())
    layer(torch.tensor([[127.0, 127.0, 0.0, 127.0]])).backward()
    expected = 127 * (7 + (2 - 2.25)) / 28**0.5
    torch.testing.assert_close(layer.weight_log_scale.grad, torch.tensor([expected]), rtol=1e-3, atol=0)
    assert layer.weight.grad.tolist() == [[0.0, 127.0, 0.0, 127.0]], "what is clipped has no gradient"


def test_a_static_scale_follows_in_training_and_stays_in_evaluation():
    layer = nn.Linear(4, 3)
    prepare(layer, QuantConfig("test", [Rule("**", W(8), A(8, static=True))]))
    set_precision(layer, Precision.rules)
    with pytest.raises(UserError, match="was never calibrated"):
        layer.eval()(torch.ones(2, 4))
    layer.train()(torch.full((2, 4), 2.0))
    assert layer.activation_max == 2
    layer(torch.full((2, 4), 4.0))
    torch.testing.assert_close(layer.activation_max, torch.tensor(2.1))
    layer.eval()(torch.full((2, 4), 9.0))
    torch.testing.assert_close(layer.activation_max, torch.tensor(2.1))
    assert torch.equal(layer(torch.full((1, 4), 9.0)), layer(torch.full((1, 4), 3.0))), "both are clipped"
    x = torch.tensor([[1.0, 9.0, -9.0, -1.0]], requires_grad=True)
    layer(x).sum().backward()
    assert (x.grad != 0).tolist() == [[True, False, False, True]]


def test_masks_keep_the_largest_of_each_group_and_pruned_weights_may_return():
    layer = nn.Linear(4, 1, bias=False)
    layer.weight.data = torch.tensor([[0.1, -3.0, 2.0, 0.2]])
    prepare(layer, QuantConfig("test", [Rule("**", W(4), A(8), Sparsity(2, 4))]))
    set_precision(layer, Precision.rules)
    assert layer.weight_mask.all(), "nothing is pruned before its time"
    prune(layer)
    assert layer.weight_mask.tolist() == [[False, True, True, False]]
    assert layer.quantized_weight().codes.tolist() == [[0, -7, 5, 0]]
    layer(torch.ones(1, 4)).sum().backward()
    assert (layer.weight.grad != 0).all()
    layer.weight.data[0, 0] = 5.0
    prune(layer)
    assert layer.weight_mask.tolist() == [[True, True, False, False]]


def test_pruning_alone():
    layer = nn.Linear(4, 2)
    prepare(layer, QuantConfig("test", [Rule("**", sparsity=Sparsity(1, 4))]))
    set_precision(layer, Precision.rules)
    prune(layer)
    x = torch.randn(3, 4)
    expected = x @ (layer.weight * layer.weight_mask).t() + layer.bias
    torch.testing.assert_close(layer(x), expected)
    freeze(layer)
    assert torch.equal(layer.weight == 0, layer.weight.abs() < layer.weight.abs().amax(1, keepdim=True))
    assert set(layer.state_dict()) == {"weight", "bias"}
    torch.testing.assert_close(layer(x), expected)


@pytest.mark.parametrize(
    ("rule", "layer", "words"),
    [
        (Rule("**", W(4, group_size=5)), nn.Linear(12, 3), "part .* group_size=5, .* K=12 .nearest that does: 4"),
        (Rule("**", W(4, group_size=100)), nn.Linear(64, 3), "part .* group_size=100, .* K=64 .nearest that does: 64"),
        (Rule("**", W(4, group_size=4)), nn.Conv1d(4, 4, 4), "part .* group_size=4 .a convolution has one scale"),
        (Rule("**", W(4), sparsity=Sparsity(2, 4)), nn.Linear(15, 3), "part .* of=4, .* K=15 .nearest that does: [35]"),
        (Rule("**", W(4), sparsity=Sparsity(2, 4)), nn.Linear(17, 3), "part .* of=4, .* K=17 .*leave sparsity out"),
        (Rule("**", W(4), A(8)), nn.Embedding(5, 4), "part take.* none .a look-up is no product"),
    ],
)
def test_what_cannot_be_is_named_with_the_nearest_choice(rule, layer, words):
    with pytest.raises(UserError, match=words):
        assign(nn.ModuleDict({"part": layer}), [rule])


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: W(0), "weight bits is 0; give 1 to 8"),
        (lambda: W(9), "weight bits is 9"),
        (lambda: A(1), "activation bits is 1; give 2 to 8"),
        (lambda: W(4, group_size=0), "group_size is 0"),
        (lambda: W(4, WeightGranularity.per_tensor, group_size=4), "group_size=4 needs granularity=per_channel"),
        (lambda: W(4, scale=WeightScale.mean), "scale=mean is for 1 and 2 bits, not 4"),
        (lambda: W(1, scale=WeightScale.search), "scale=search has no meaning at 1 bit"),
        (lambda: W(1, range=Range.full), "range=full has no meaning at 1 bit"),
        (lambda: W(8, symmetric=False), "symmetric=false at 8 bits"),
        (lambda: W(1, symmetric=False), "symmetric=false at 1 bits"),
        (lambda: W(4, symmetric=False, scale=WeightScale.search), "leave scale and range out"),
        (lambda: Sparsity(4, 4), "sparsity keeps 4 of 4"),
        (lambda: Sparsity(0, 4), "sparsity keeps 0 of 4"),
        (lambda: Rule("x", W(1), sparsity=Sparsity()), "1 bit has no code for a pruned weight"),
    ],
)
def test_specs_that_make_no_sense(make, words):
    with pytest.raises(UserError, match=words):
        make()


@pytest.mark.parametrize(("precision", "bits", "activation_bits"), [("int8", 8, 8), ("int2", 2, 4), ("int1", 1, 4)])
def test_precisions_of_other_bits(precision, bits, activation_bits):
    layer = nn.Linear(12, 3)
    prepare(layer, QuantConfig("test", [Rule("**", W(4, symmetric=False, learned=True), A(4))]))
    set_precision(layer, Precision(precision))
    assert (layer.weight_spec.bits, layer.activation_spec.bits) == (bits, activation_bits)
    assert layer(torch.randn(2, 12)).isfinite().all()


@pytest.mark.parametrize(
    "spec", [W(4), W(8, WeightGranularity.per_tensor), W(4, group_size=4), W(4, symmetric=False), W(1)], ids=str
)
def test_a_weight_without_storage_has_the_shapes_of_one_with_it(spec: WeightSpec) -> None:
    weight = torch.randn(6, 8, generator=torch.Generator().manual_seed(0))
    found, outline = quantize_weight(weight, spec, "w"), quantize_weight(weight.to("meta"), spec, "w")
    for real, described in zip(found, outline, strict=True):
        if real is None:
            assert described is None
        else:
            assert described.is_meta
            assert (described.shape, described.dtype) == (real.shape, real.dtype)
