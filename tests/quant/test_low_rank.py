"""Layers as products of thinner ones, on models that know nothing of speech."""

import pytest
import torch
from torch import nn

from nibble.errors import UserError
from nibble.quant.convert import prepare, quantized_modules
from nibble.quant.low_rank import factorize, low_rank_modules
from nibble.quant.rules import coverage
from nibble.quant.spec import ActivationSpec, LowRank, QuantConfig, Rule, WeightSpec


def mlp() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(20, 40), nn.ReLU(), nn.Linear(40, 6, bias=False))


def test_nearest_matrix_of_its_rank():
    """The error is what Eckart and Young say: the singular values that are left out; both factors have one norm."""
    model = mlp()
    weight, x = model[0].weight.detach().clone(), torch.randn(3, 20)
    bias = model[0].bias.detach().clone()
    factorize(model, [LowRank("0", 0.5)])
    first, second = model[0].first.weight, model[0].second.weight
    assert (first.shape, second.shape) == ((10, 20), (40, 10))
    error = (weight - second @ first).square().sum()
    torch.testing.assert_close(error, torch.linalg.svdvals(weight)[10:].square().sum())
    torch.testing.assert_close(first.norm(), second.norm())
    torch.testing.assert_close(model[0](x), x @ (second @ first).T + bias)


def test_a_matrix_of_low_rank_stays_what_it_was():
    model = mlp()
    with torch.no_grad():
        model[0].weight.copy_(torch.randn(40, 3) @ torch.randn(3, 20))
    x = torch.randn(5, 20)
    expected = model(x)
    factorize(model, [LowRank("0", 0.15)])
    torch.testing.assert_close(model(x), expected)


def test_the_first_rule_wins_and_names_are_those_of_the_layer():
    model = mlp()
    factorize(model, [LowRank("2", 0.34), LowRank("**", 0.25)])
    assert {name: module.rank for name, module in low_rank_modules(model).items()} == {"0": 5, "2": 2}
    names = ["0.first.weight", "0.second.weight", "0.second.bias", "2.first.weight", "2.second.weight"]
    assert list(model.state_dict()) == names


def test_a_shared_layer_stays_shared():
    layer = nn.Linear(8, 8)
    model = nn.ModuleDict({"one": layer, "other": layer})
    factorize(model, [LowRank("one", 0.25)])
    assert model["one"] is model["other"]
    assert model["other"].rank == 2


def test_multihead_attention_keeps_its_output_layer():
    """It takes that layer's weight without calling the layer."""
    model = nn.MultiheadAttention(8, 2)
    with pytest.raises(UserError, match=r"match='\*\*' wins no Linear"):
        factorize(model, [LowRank("**", 0.25)])


def test_quantization_sees_the_factors():
    """Rules match them as ordinary layers, and a second call of prepare on factors without rules changes nothing."""
    low_rank = [LowRank("0", 0.5)]
    model = mlp()
    rules = [Rule("0.first", WeightSpec(8), ActivationSpec(8)), Rule("**", WeightSpec(4), ActivationSpec(8))]
    prepare(model, QuantConfig("test", rules, low_rank=low_rank))
    assert list(quantized_modules(model)) == ["0.first", "0.second", "2"]
    assert {part.name: part.bits for part in coverage(model)} == {
        "0.first.weight": 8,
        "0.second.weight": 4,
        "0.second.bias": 16,
        "2.weight": 4,
    }
    model = mlp()
    for _ in range(2):
        prepare(model, QuantConfig("test", low_rank=low_rank))
    assert list(low_rank_modules(model)) == ["0"]


def test_a_factorized_model_can_be_quantized_without_repeating_its_rules():
    model = mlp()
    factorize(model, [LowRank("0", 0.5)])
    prepare(model, QuantConfig("test", [Rule("**", WeightSpec(4))]))
    assert list(quantized_modules(model)) == ["0.first", "0.second", "2"]


def test_shapes_are_enough():
    """Rules are checked on a model without storage."""
    with torch.device("meta"):
        model = mlp()
        factorize(model, [LowRank("**", 0.34)])
    assert model[2].second.weight.shape == (6, 2)


@pytest.mark.parametrize("share", [0.0, 1.0, -0.5])
def test_impossible_shares(share):
    with pytest.raises(UserError, match=f"share is {share}; give more than 0 and less than 1"):
        LowRank("**", share)


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ([LowRank("1", 0.2)], "low_rank 1: match='1' wins no Linear layer; nearest: 0, 2"),
        ([LowRank("**", 0.2), LowRank("0", 0.5)], "low_rank 2: match='0' wins no Linear layer; earlier rules take 0"),
        (
            [LowRank("0", 0.7)],
            r"0 \(40, 20\): share=0.7 of 20 is rank 14, which saves nothing .at most 13 does.; nearest share: 0.65",
        ),
        ([LowRank("2", 0.1)], r"2 \(6, 40\): share=0.1 of 6 is rank 0; nearest share: 0.1667"),
    ],
)
def test_wrong_rules(rules, message):
    with pytest.raises(UserError, match=message):
        factorize(mlp(), rules)


def test_the_share_a_message_names_is_legal():
    for share in (0.65, 0.1667):
        factorize(mlp(), [LowRank("0" if share > 0.5 else "2", share)])


def test_a_layer_too_thin_for_any_rank():
    with pytest.raises(UserError, match=r"\(1, 8\).*let no rule match"):
        factorize(nn.Linear(8, 1), [LowRank("**", 0.5)])


def test_what_cannot_be_factorized():
    model = mlp()
    with torch.no_grad():
        model[0].weight[3, 4] = torch.nan
    with pytest.raises(UserError, match=r"0 cannot be factorized.*give another checkpoint"):
        factorize(model, [LowRank("0", 0.5)])
    model = mlp()
    nn.utils.parametrizations.weight_norm(model[0])
    with pytest.raises(UserError, match="0 has a parametrized weight"):
        factorize(model, [LowRank("0", 0.5)])


def test_other_rules_than_before():
    model = mlp()
    factorize(model, [LowRank("0", 0.5)])
    with pytest.raises(UserError, match=r"by other rules: 0 has rank 10, quant\.low_rank asks for 8"):
        factorize(model, [LowRank("0", 0.4)])
    with pytest.raises(UserError, match=r"by other rules: 2 has rank full, quant\.low_rank asks for 3"):
        factorize(model, [LowRank("**", 0.5)])
