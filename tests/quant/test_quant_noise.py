"""Noise in place of rounding."""

import copy

import pytest
import torch
from torch import nn

from nibble.quant.convert import freeze, prepare, prune, set_precision
from nibble.quant.noise import with_noise
from nibble.quant.numerics import code_bounds, quantize_weight
from nibble.quant.spec import (
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
from nibble.quant.tensor import in_slices

SPECS = [
    WeightSpec(4),
    WeightSpec(8),
    WeightSpec(4, WeightGranularity.per_tensor),
    WeightSpec(4, group_size=16),
    WeightSpec(4, range=Range.full),
    WeightSpec(4, range=Range.half_step),
    WeightSpec(4, symmetric=False),
    WeightSpec(4, scale=WeightScale.search),
    WeightSpec(2),
    WeightSpec(1),
]


def weights() -> torch.Tensor:
    torch.manual_seed(0)
    return torch.randn(8, 64) + 0.3


def drawn(weight: torch.Tensor, spec: WeightSpec, seed: int = 0) -> torch.Tensor:
    integers = quantize_weight(weight, spec, "w")
    torch.manual_seed(seed)
    return with_noise(weight, integers, spec)


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_half_a_step_at_most_and_within_the_codes(spec):
    weight = weights()
    integers = quantize_weight(weight, spec, "w")
    noisy = drawn(weight, spec)
    assert noisy.shape == weight.shape
    lowest, highest = code_bounds(spec.bits, spec.range if spec.symmetric else Range.full)
    zero = 0 if integers.zero is None else integers.zero.float()
    steps = in_slices(noisy, integers.scale) / integers.scale
    assert (steps >= lowest - zero - 1e-4).all()
    assert (steps <= highest - zero + 1e-4).all()
    # What is clipped moves as far as rounding moves it.
    rounding = in_slices(integers.dequantize() - weight, integers.scale).abs() / integers.scale
    error = in_slices(noisy - weight, integers.scale).abs() / integers.scale
    assert (error <= rounding.clamp(min=1.0 if spec.bits == 1 else 0.5) + 1e-4).all()


def test_as_wide_as_the_rounding_error():
    """Variance s^2 / 12 about the weight, for what is not at the edge of the codes; new noise each time."""
    weight = weights()
    scale = quantize_weight(weight, WeightSpec(4), "w").scale
    errors = torch.stack([(drawn(weight, WeightSpec(4), seed) - weight) / scale for seed in range(50)])
    inside = weight.abs() < 6.5 * scale
    assert errors[:, inside].var().item() == pytest.approx(1 / 12, rel=0.02)
    assert errors[:, inside].mean().item() == pytest.approx(0, abs=0.005)
    assert not torch.equal(errors[0], errors[1])


def test_the_largest_weight_gets_the_gradient_of_the_scale():
    """d w~_i / d max|w| = u_i / Q, besides d w~_i / d w_i = 1."""
    weight = torch.tensor([[0.7, -0.1, 0.3, 0.2]], requires_grad=True)
    integers = quantize_weight(weight, WeightSpec(4), "w")
    slopes = torch.tensor([[0.0, 2.0, -3.0, 5.0]])
    torch.manual_seed(3)
    noisy = with_noise(weight, integers, WeightSpec(4))
    (slopes * noisy).sum().backward()
    u = (noisy - weight).detach() / integers.scale
    expected = slopes.clone()
    expected[0, 0] = (slopes * u).sum() / 7
    torch.testing.assert_close(weight.grad, expected, rtol=1e-3, atol=1e-4)  # the scale has float16 values


def test_the_sign_that_sets_a_full_range_gets_it():
    """-8 ... 7: here the positive weight sets the scale, though the negative one is larger."""
    spec = WeightSpec(4, range=Range.full)
    weight = torch.tensor([[0.8, -0.81, 0.3]], requires_grad=True)
    torch.manual_seed(0)
    with_noise(weight, quantize_weight(weight, spec, "w"), spec)[0, 2].backward()
    assert weight.grad[0, 0] != 0
    assert weight.grad[0, 1] == 0


@pytest.mark.parametrize(
    "spec", [WeightSpec(4, symmetric=False), WeightSpec(2, scale=WeightScale.mean), WeightSpec(1)], ids=str
)
def test_other_scales_follow_what_they_are_computed_from(spec):
    weight = torch.tensor([[0.7, -0.5, 0.1, 0.2]], requires_grad=True)
    torch.manual_seed(0)
    with_noise(weight, quantize_weight(weight, spec, "w"), spec)[0, 2].backward()
    assert weight.grad[0, 0] != 0
    assert weight.grad[0, 1] == -weight.grad[0, 0]


def test_a_learned_scale_learns():
    """d w~ / dp = s u where nothing is clipped."""
    spec = WeightSpec(4, learned=True)
    weight = torch.tensor([[0.7, -0.1, 0.3, 0.2]])
    log_scale = torch.zeros(1, requires_grad=True)
    integers = quantize_weight(weight, spec, "w", log_scale)
    noisy = with_noise(weight, integers, spec, log_scale)
    noisy[0, 1:].sum().backward()
    torch.testing.assert_close(log_scale.grad, (noisy - weight)[0, 1:].detach().sum().view(1))


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_zeros_stay_zero_without_nan(spec):
    weight = weights().index_fill(0, torch.tensor([2]), 0.0)
    weight.requires_grad_()
    noisy = drawn(weight, spec)
    noisy.square().sum().backward()
    assert weight.grad.isfinite().all()
    if spec.granularity is WeightGranularity.per_channel:
        assert noisy[2].eq(0).all()


def quantized(layer: nn.Module, arithmetic: Arithmetic = Arithmetic.noise, **options: object) -> nn.Module:
    model = nn.Sequential(layer)
    prepare(model, QuantConfig("test", [Rule("**", WeightSpec(4), ActivationSpec(8), **options)], arithmetic))
    set_precision(model, Precision.rules)
    return model


LAYERS = {
    "linear": (lambda: nn.Linear(8, 6), (3, 8)),
    "1d": (lambda: nn.Conv1d(4, 6, 3), (2, 4, 9)),
    "2d": (lambda: nn.Conv2d(2, 4, 3), (2, 2, 5, 5)),
    "lstm": (lambda: nn.LSTM(6, 4, batch_first=True), (2, 3, 6)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_trains_with_noise_and_evaluates_with_codes(name):
    build, shape = LAYERS[name]
    torch.manual_seed(0)
    layer, x = build(), torch.randn(shape)
    noisy, native = quantized(copy.deepcopy(layer)), quantized(layer, Arithmetic.native)
    first, second = (output(noisy, x) for _ in range(2))
    assert not torch.equal(first, second)
    (first - second).square().sum().backward()
    assert all(parameter.grad is not None for parameter in noisy.parameters() if parameter.dim() > 1)
    torch.manual_seed(1)
    third = output(noisy, x)
    torch.manual_seed(1)
    assert torch.equal(output(noisy, x), third), "the noise is that of torch's generator, which a run seeds"
    assert (third - output(native, x)).norm() < 0.5 * third.norm()
    assert torch.equal(output(noisy.eval(), x), output(native.eval(), x))
    freeze(noisy)
    assert torch.equal(output(noisy.train(), x), output(native, x))


def output(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    found = model(x)
    return found[0] if isinstance(found, tuple) else found


def test_an_embedding_has_noise_too():
    model = nn.Sequential(nn.Embedding(5, 8))
    prepare(model, QuantConfig("test", [Rule("**", WeightSpec(4))], Arithmetic.noise))
    set_precision(model, Precision.rules)
    ids = torch.tensor([1, 4])
    assert not torch.equal(model(ids), model(ids))
    model.eval()
    assert torch.equal(model(ids), model(ids))


def test_a_ramp_has_a_share_of_the_noise():
    torch.manual_seed(0)
    model = quantized(nn.Linear(8, 6))
    layer = model[0]
    errors = {}
    for blend in (0.0, 0.25, 1.0):
        set_precision(model, Precision.rules, blend)
        torch.manual_seed(2)
        errors[blend] = (layer.weight_source().values() - layer.weight).detach()
    assert errors[0.0].eq(0).all()
    torch.testing.assert_close(errors[0.25], 0.25 * errors[1.0], rtol=1e-3, atol=1e-6)


def test_pruned_weights_stay_zero_and_can_return():
    model = quantized(nn.Linear(8, 6), sparsity=Sparsity(2, 4))
    prune(model)
    values = model[0].weight_source().values()
    assert values[~model[0].weight_mask].eq(0).all()
    assert values[model[0].weight_mask].ne(0).all()
    values.sum().backward()
    assert model[0].weight.grad[~model[0].weight_mask].eq(1).all()


def test_a_learned_scale_gets_a_gradient():
    model = nn.Sequential(nn.Linear(8, 6))
    prepare(model, QuantConfig("test", [Rule("**", WeightSpec(4, learned=True))], Arithmetic.noise))
    set_precision(model, Precision.rules)
    model(torch.randn(3, 8)).square().sum().backward()
    assert model[0].weight_log_scale.grad.ne(0).all()
