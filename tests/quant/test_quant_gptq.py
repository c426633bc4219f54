"""Rounding with error feedback, against the plain algorithm, and on layers of every kind."""

import pytest
import torch
from torch import Tensor, nn

from nibble.quant.calibration import second_moments
from nibble.quant.convert import freeze, prepare, prune, quantized_modules, set_precision
from nibble.quant.gptq import DAMPING, Grid, freeze_gptq, inverse_factor, output_error, round_with_feedback
from nibble.quant.numerics import dequantize, quantize, quantize_weight
from nibble.quant.spec import ActivationSpec, Precision, QuantConfig, Range, Rule, Sparsity, WeightSpec


def correlated(rows: int, inputs: int, seed: int) -> Tensor:
    """(rows, K) with a few strong directions, as the inputs of a trained layer have."""
    draw = torch.Generator().manual_seed(seed)
    mixing = torch.randn(inputs, inputs, generator=draw) / torch.arange(1, inputs + 1).sqrt()[:, None]
    return torch.randn(rows, inputs, generator=draw) @ mixing + 0.05 * torch.randn(rows, inputs, generator=draw)


def grid(weight: Tensor, spec: WeightSpec) -> Grid:
    """The grid that rounding (N, K) to nearest has, for one group."""
    scale = quantize_weight(weight, spec, "w").scale
    return Grid(scale.expand_as(weight)[None], None, None, spec)


def plain_gptq(weight: Tensor, moment: Tensor, scale: Tensor, bits: int) -> Tensor:
    """Column by column as optimal brain surgery has it: the Hessian of the inputs that are left, inverted anew."""
    weight, hessian = weight.double().clone(), moment.double().clone()
    hessian += DAMPING * hessian.diagonal().mean() * torch.eye(len(hessian), dtype=torch.float64)
    left = sorted(range(len(hessian)), key=lambda column: -float(moment[column, column]))
    codes = torch.zeros_like(weight)
    while left:
        column = left[0]
        inverse = torch.linalg.inv(hessian[left][:, left])
        codes[:, column] = quantize(weight[:, column], scale[:, 0].double(), bits, Range.narrow)
        error = (weight[:, column] - codes[:, column] * scale[:, 0]) / inverse[0, 0]
        weight[:, left] -= error[:, None] * inverse[0]
        left = left[1:]
    return codes


@pytest.mark.parametrize(("inputs", "bits", "seed"), [(1, 4, 0), (5, 4, 1), (12, 3, 2), (17, 2, 3), (9, 8, 4)])
def test_the_plain_algorithm_gives_the_same_codes(inputs, bits, seed):
    weight = torch.randn(6, inputs, generator=torch.Generator().manual_seed(seed))
    x = correlated(40, inputs, seed)
    how = grid(weight, WeightSpec(bits=bits))
    codes = round_with_feedback(weight[None], (x.T @ x)[None], how)[0]
    assert torch.equal(codes.double(), plain_gptq(weight, x.T @ x, how.scale[0], bits))


def test_blocks_change_nothing(monkeypatch):
    weight = torch.randn(2, 4, 37, generator=torch.Generator().manual_seed(0))
    moment = torch.stack([correlated(99, 37, seed).T.cov() for seed in (1, 2)])
    how = Grid(torch.full_like(weight, 0.3), None, None, WeightSpec(bits=4))
    whole = round_with_feedback(weight, moment, how)
    monkeypatch.setattr("nibble.quant.gptq.BLOCK", 8)
    assert torch.equal(whole, round_with_feedback(weight, moment, how))


@pytest.mark.parametrize("bits", [1, 2, 3, 4])
def test_uncorrelated_inputs_give_nearest_rounding(bits):
    weight = torch.randn(8, 20, generator=torch.Generator().manual_seed(bits))
    spec = WeightSpec(bits=bits)
    power = torch.rand(20, generator=torch.Generator().manual_seed(9)).diag()[None]
    codes = round_with_feedback(weight[None], power, grid(weight, spec))[0]
    assert torch.equal(codes, quantize_weight(weight, spec, "w").codes.float())


def test_inputs_that_are_always_zero_are_rounded_to_nearest():
    weight = torch.randn(8, 20, generator=torch.Generator().manual_seed(0))
    x = correlated(50, 20, 1)
    x[:, 3:9] = 0
    spec = WeightSpec(bits=3)
    codes = round_with_feedback(weight[None], (x.T @ x)[None], grid(weight, spec))[0]
    nearest = quantize_weight(weight, spec, "w").codes.float()
    assert torch.equal(codes[:, 3:9], nearest[:, 3:9])
    assert not torch.equal(codes, nearest)
    silent = round_with_feedback(weight[None], torch.zeros(1, 20, 20), grid(weight, spec))[0]
    assert torch.equal(silent, nearest)


def test_fewer_rows_than_inputs():
    x = correlated(3, 30, 0)
    factor = inverse_factor((x.T @ x)[None])
    assert torch.isfinite(factor).all()
    assert torch.equal(factor, factor.triu())


def test_the_error_of_the_output_falls():
    """On correlated inputs, by more than a quarter for each of twenty draws, and at each width."""
    for seed in range(20):
        for bits in (3, 4):
            weight = torch.randn(16, 32, generator=torch.Generator().manual_seed(seed))
            x = correlated(200, 32, seed)
            spec = WeightSpec(bits=bits)
            how, moment = grid(weight, spec), (x.T @ x)[None]
            codes = round_with_feedback(weight[None], moment, how)
            after = output_error(weight[None] - dequantize(codes, how.scale), moment).sum()
            nearest = quantize_weight(weight, spec, "w")
            before = output_error((weight - dequantize(nearest.codes, nearest.scale))[None], moment).sum()
            assert after < 0.75 * before
            difference = (x @ (weight - dequantize(codes[0], how.scale[0])).T).square().sum()
            torch.testing.assert_close(difference, after, rtol=1e-3, atol=0)
