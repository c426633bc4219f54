"""Rounding with error feedback, against the plain algorithm, and on layers of every kind."""

import pytest
import torch
from torch import Tensor, nn

from nibble.errors import UserError
from nibble.quant.calibration import second_moments
from nibble.quant.convert import freeze, prepare, prune, quantized_modules, set_precision
from nibble.quant.gptq import DAMPING, Grid, OutputError, freeze_gptq, inverse_factor, output_error, round_with_feedback
from nibble.quant.numerics import code_bounds, quantize, quantize_weight
from nibble.quant.sparsity import n_m_mask
from nibble.quant.spec import (
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
            after = output_error(weight[None] - QuantizedTensor(codes, how.scale).dequantize(), moment).sum()
            nearest = quantize_weight(weight, spec, "w")
            before = output_error((weight - nearest.dequantize())[None], moment).sum()
            assert after < 0.75 * before
            difference = (x @ (weight - QuantizedTensor(codes[0], how.scale[0]).dequantize()).T).square().sum()
            torch.testing.assert_close(difference, after, rtol=1e-3, atol=0)


SPECS = {
    "int4": WeightSpec(bits=4),
    "int3 per tensor": WeightSpec(bits=3, granularity=WeightGranularity.per_tensor),
    "ternary": WeightSpec(bits=2),
    "sign": WeightSpec(bits=1),
    "full range": WeightSpec(bits=3, range=Range.full),
    "clip search": WeightSpec(bits=3, scale=WeightScale.search),
    "asymmetric": WeightSpec(bits=3, symmetric=False),
}


def every_kind() -> nn.Module:
    torch.manual_seed(0)
    return nn.ModuleDict(
        {
            "table": nn.Embedding(7, 16),
            "lstm": nn.LSTM(16, 16, batch_first=True),
            "linear": nn.Linear(16, 16),
            "depthwise": nn.Conv1d(16, 16, 5, padding=2, groups=16),
            "subsampling": nn.Conv2d(1, 8, 3, stride=2),
        }
    )


def walk(model: nn.Module) -> dict[str, Tensor]:
    """What each layer puts out for the same inputs, those of the float model."""
    draw = torch.Generator().manual_seed(1)
    x = correlated(60, 16, 2).view(3, 20, 16)
    labels = torch.randint(7, (3, 6), generator=draw)
    return {
        "table": model["table"](labels),
        "lstm": model["lstm"](x)[0],
        "linear": model["linear"](x),
        "depthwise": model["depthwise"](x.transpose(1, 2)),
        "subsampling": model["subsampling"](x[:, None]),
    }


def frozen_by_gptq(rule: Rule) -> tuple[nn.Module, nn.Module, dict[str, OutputError]]:
    """A model rounded to nearest, and one rounded with feedback."""
    nearest, model = every_kind(), every_kind()
    for each in (nearest, model):
        prepare(each, QuantConfig("test", [rule]))
    moments = second_moments(model, lambda: walk(model))
    for each in (nearest, model):
        set_precision(each, Precision.rules)
        prune(each)
    errors = freeze_gptq(model, moments)
    freeze(model)
    freeze(nearest)
    return nearest, model, errors


@pytest.mark.parametrize("name", SPECS)
def test_every_layer_is_nearer_to_its_float_output(name):
    rule = Rule(weight=SPECS[name])
    nearest, model, errors = frozen_by_gptq(rule)
    outputs, rounded, expected = walk(model), walk(nearest), walk(every_kind())
    assert set(errors) == {
        *("linear.weight", "depthwise.weight", "subsampling.weight", "lstm.weight_ih_l0", "lstm.weight_hh_l0")
    }
    assert torch.equal(outputs["table"], rounded["table"]), "a look-up is rounded to nearest"
    for layer in ("linear", "depthwise", "subsampling"):
        after, before = ((each[layer] - expected[layer]).square().sum() for each in (outputs, rounded))
        assert after <= before * (1 + 1e-5)
        error = errors[f"{layer}.weight"]
        torch.testing.assert_close(
            torch.tensor([error.gptq, error.nearest]), torch.stack((after, before)), rtol=1e-3, atol=1e-4
        )
    assert errors["linear.weight"].gptq < 0.9 * errors["linear.weight"].nearest
    for layer, other in zip(quantized_modules(model).values(), quantized_modules(nearest).values(), strict=True):
        for (codes, scale, zero), same in zip(
            layer.frozen_weights().values(), other.frozen_weights().values(), strict=True
        ):
            assert codes.dtype == torch.int8
            assert torch.equal(scale, same.scale), "scales are those of rounding to nearest"
            lowest, highest = code_bounds(rule.weight.bits, rule.weight.range if zero is None else Range.full)
            given_back = codes if zero is None else codes + zero
            assert lowest <= given_back.min()
            assert given_back.max() <= highest


def test_groups_along_k():
    model = nn.Sequential(nn.Linear(24, 8))
    prepare(model, QuantConfig("g8", [Rule(weight=WeightSpec(bits=3, group_size=8))]))
    x = correlated(90, 24, 0)
    moments = second_moments(model, lambda: model(x))
    set_precision(model, Precision.rules)
    nearest = model[0].quantized_weight()
    error = freeze_gptq(model, moments)["0.weight"]
    assert error.gptq < 0.75 * error.nearest
    codes, scale, _ = model[0].frozen_weights()["weight"]
    assert scale.shape == (8, 3, 1)
    assert torch.equal(scale.float(), nearest.scale)
    assert not torch.equal(codes, nearest.codes)


def test_pruned_weights_stay_pruned_and_their_loss_is_taken_back():
    rule = Rule("linear", WeightSpec(bits=4), sparsity=Sparsity(2, 4))
    _, model, errors = frozen_by_gptq(rule)
    kept = n_m_mask(every_kind()["linear"].weight.detach(), rule.sparsity)
    codes = model["linear"].frozen_weights()["weight"].codes
    assert not codes[~kept].any()
    assert codes[kept].any()
    assert errors["linear.weight"].gptq < 0.75 * errors["linear.weight"].nearest


def test_layers_that_saw_nothing_are_left_for_nearest():
    model = every_kind()
    prepare(model, QuantConfig("int4", [Rule(weight=WeightSpec(bits=4))]))
    set_precision(model, Precision.rules)
    assert freeze_gptq(
        model, {"linear.weight": torch.eye(16)[None], "lstm.weight_ih_l0": torch.eye(16)[None]}
    ).keys() == {"linear.weight"}
    assert [name for name, layer in quantized_modules(model).items() if layer.frozen] == ["linear"]


def test_inputs_that_are_not_finite_name_the_layer():
    model = nn.ModuleDict({"head": nn.Linear(4, 2)})
    prepare(model, QuantConfig("int4", [Rule(weight=WeightSpec(bits=4))]))
    moments = second_moments(model, lambda: model["head"](torch.tensor([1.0, 2.0, float("nan"), 0.0])))
    set_precision(model, Precision.rules)
    with pytest.raises(UserError, match="head: NaN or infinity in its calibration inputs"):
        freeze_gptq(model, moments)
