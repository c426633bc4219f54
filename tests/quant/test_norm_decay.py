"""The penalty on the largest weights."""

import math

import pytest
import torch
from torch import nn

from nibble.quant.convert import freeze, prepare, set_precision
from nibble.quant.norm_decay import crest_factor, norm_decay
from nibble.quant.spec import Precision, QuantConfig, Rule, WeightGranularity, WeightSpec

WEIGHT = torch.tensor([[-3.0, 1.0, 0.0, 0.0], [2.0, 2.0, -4.0, 0.0]])


@pytest.mark.parametrize(
    ("spec", "ratios"),
    [
        (WeightSpec(4), [3 / math.sqrt(10 / 4), 4 / math.sqrt(24 / 4)]),
        (WeightSpec(4, WeightGranularity.per_tensor), [4 / math.sqrt(34 / 8)]),
        (WeightSpec(4, group_size=2), [3 / math.sqrt(10 / 2), 0.0, 1.0, 4 / math.sqrt(16 / 2)]),
    ],
)
def test_slices_are_what_shares_a_scale(spec, ratios):
    """A slice of zeros counts as 0."""
    assert crest_factor(WEIGHT, spec).item() == pytest.approx(sum(ratios) / len(ratios))


def test_only_the_largest_weights_get_a_gradient():
    weight = WEIGHT.clone().requires_grad_()
    crest_factor(weight, WeightSpec(4)).backward()
    expected = torch.zeros(2, 4)
    expected[0, 0], expected[1, 2] = -0.5 / math.sqrt(10 / 4), -0.5 / math.sqrt(24 / 4)
    torch.testing.assert_close(weight.grad, expected)


def test_scale_of_a_layer_does_not_matter():
    for spec in (WeightSpec(4), WeightSpec(2, group_size=2)):
        torch.testing.assert_close(crest_factor(1000 * WEIGHT, spec), crest_factor(WEIGHT, spec))


def test_zeros():
    weight = torch.zeros(2, 4, requires_grad=True)
    crest_factor(weight, WeightSpec(4)).backward()
    assert weight.grad.eq(0).all()


def test_counts_quantized_weights_only():
    """Every weight of a rule with weights, in float phases too; nothing once frozen."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 4), nn.Linear(4, 4), nn.LSTM(4, 4, batch_first=True))
    assert norm_decay(model) == 0
    prepare(model, QuantConfig("test", [Rule("1"), Rule("**", WeightSpec(4))]))
    counted = [model[0].weight, model[2].weight_ih_l0, model[2].weight_hh_l0]
    expected = sum(crest_factor(weight, WeightSpec(4)) for weight in counted)
    torch.testing.assert_close(norm_decay(model), expected)
    norm_decay(model).backward()
    assert model[1].weight.grad is None
    set_precision(model, Precision.rules)
    freeze(model)
    assert norm_decay(model) == 0


def test_training_with_it_lowers_the_largest_weights():
    """One step of plain gradient descent moves the outlier and nothing else."""
    torch.manual_seed(0)
    model = nn.Linear(16, 1)
    with torch.no_grad():
        model.weight[0, 3] = 2.0
    before = model.weight.detach().clone()
    prepare(model, QuantConfig("test", [Rule("**", WeightSpec(4))]))
    norm_decay(model).backward()
    torch.optim.SGD(model.parameters(), 0.1).step()
    moved = model.weight.detach() - before
    assert moved[0, 3] < 0
    assert (moved != 0).sum() == 1
