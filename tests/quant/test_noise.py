"""Noise in place of rounding."""

import pytest
import torch

from nibble.quant.noise import with_noise
from nibble.quant.numerics import code_bounds, dequantize, in_slices, quantize_weight
from nibble.quant.spec import Range, WeightGranularity, WeightScale, WeightSpec

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
    rounding = in_slices(dequantize(integers.codes, integers.scale) - weight, integers.scale).abs() / integers.scale
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


@pytest.mark.parametrize("spec", [WeightSpec(4, symmetric=False), WeightSpec(2), WeightSpec(1)], ids=str)
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
