"""Each precision of a run for several has its own batch-norm statistics."""

import copy

import pytest
import torch
from torch import nn

from nibble.quant.convert import evaluated_at, freeze, prepare, set_precision
from nibble.quant.norm_statistics import separate
from nibble.quant.spec import ActivationSpec, Precision, QuantConfig, Rule, WeightSpec

TOGETHER = [Precision.float, Precision.int8, Precision.int2]


@pytest.fixture
def model():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.BatchNorm1d(8, track_running_stats=False))
    prepare(model, QuantConfig("test", [Rule("**", WeightSpec(4), ActivationSpec(8))]))
    separate(model, TOGETHER)
    return model


def train_at(model: nn.Module, precision: Precision, mean: float) -> None:
    set_precision(model, precision)
    for _ in range(3):
        model.train()(torch.randn(64, 6) + mean)


def test_training_at_one_precision_leaves_the_others(model):
    train_at(model, Precision.float, 0.0)
    before = model[1].running_mean.clone()
    train_at(model, Precision.int2, 5.0)
    assert not torch.allclose(model[1].running_mean, before)
    set_precision(model, Precision.float)
    assert torch.equal(model[1].running_mean, before)


def test_a_precision_begins_where_the_one_before_it_was(model):
    train_at(model, Precision.float, 1.0)
    set_precision(model, Precision.int8)
    assert torch.equal(model[1].running_mean, model[1].running_mean_float)
    assert model[1].num_batches_tracked == 3


def test_a_precision_without_statistics_of_its_own_takes_those_in_use(model):
    train_at(model, Precision.int2, 1.0)
    set_precision(model, Precision.int4)
    assert torch.equal(model[1].running_mean, model[1].running_mean_int2)


@pytest.mark.parametrize("precision", TOGETHER)
def test_a_saved_model_has_the_statistics_of_all(model, precision):
    for number, each in enumerate(TOGETHER):
        train_at(model, each, float(number))
    set_precision(model, precision)
    state = copy.deepcopy(model.state_dict())
    fresh = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.BatchNorm1d(8, track_running_stats=False))
    prepare(fresh, QuantConfig("test", [Rule("**", WeightSpec(4), ActivationSpec(8))]))
    separate(fresh, TOGETHER)
    fresh.load_state_dict(state)
    x = torch.randn(4, 6)
    for each in TOGETHER:
        for one in (model, fresh):
            set_precision(one, each)
        assert torch.equal(fresh.eval()(x), model.eval()(x))


def test_frozen_keeps_those_in_use_alone(model):
    train_at(model, Precision.float, 0.0)
    train_at(model, Precision.int2, 2.0)
    x = torch.randn(4, 6)
    expected = model.eval()(x)
    freeze(model)
    assert [name for name in model.state_dict() if "running_mean" in name] == ["1.running_mean"]
    assert torch.equal(model(x), expected)


def test_a_look_at_another_precision_changes_nothing(model):
    train_at(model, Precision.float, 0.0)
    train_at(model, Precision.int2, 2.0)
    state = copy.deepcopy(model.state_dict())
    with evaluated_at(model, Precision.float):
        assert model[0].in_float
        assert not model.training
        model(torch.randn(9, 6))
    assert model.training
    assert model[0].weight_bits == 2
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, state[name]), name
