"""All weights quantized at once are those that layers quantize one by one, bit for bit; on a CPU as on a GPU."""

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from nibble.errors import UserError
from nibble.kernels import ops
from nibble.quant import finite, layer, weights_at_once
from nibble.quant.convert import evaluated_at, prepare, quantized_modules, set_precision
from nibble.quant.spec import (
    ActivationSpec,
    Precision,
    QuantConfig,
    Range,
    Rule,
    Sparsity,
    WeightGranularity,
    WeightScale,
    WeightSpec,
)
from nibble.quant.step import quantized_step


@pytest.fixture
def at_once(monkeypatch):
    """As on a GPU; the weights of each launch."""
    launches = []

    def counted(weights, terms, bits):
        launches.append([tuple(weight.shape) for weight in weights])
        return quantize(weights, terms, bits)

    quantize = ops.quantize_weights
    monkeypatch.setattr(ops, "quantize_weights", counted)
    monkeypatch.setattr(weights_at_once, "DEVICES", ("cpu",))
    monkeypatch.setattr(finite, "LATE_DEVICES", ("cpu",))
    return launches


@pytest.fixture
def one_by_one(monkeypatch):
    """The names of weights that their layers quantize."""
    names = []

    def noted(weight, spec, name, *more):
        names.append(name)
        return quantize(weight, spec, name, *more)

    quantize = layer.quantize_weight
    monkeypatch.setattr(layer, "quantize_weight", noted)
    return names


def network(dtype: torch.dtype = torch.float32) -> nn.ModuleDict:
    torch.manual_seed(0)
    layers = nn.ModuleDict(
        {
            "linear": nn.Linear(12, 7),
            "grouped": nn.Linear(12, 8),
            "wide": nn.Linear(700, 3),
            "eight": nn.Linear(12, 5),
            "conv": nn.Conv2d(3, 4, 3),
            "depthwise": nn.Conv1d(6, 6, 5, groups=6),
            "embedding": nn.Embedding(9, 6),
            "lstm": nn.LSTM(6, 5, batch_first=True),
        }
    )
    rules = [Rule("grouped", WeightSpec(4, group_size=6)), Rule("eight", WeightSpec(8), ActivationSpec(8))]
    prepare(layers, QuantConfig("test", [*rules, Rule("**", WeightSpec(4), ActivationSpec(8))]))
    with torch.no_grad():
        layers["linear"].weight[2] = 0
        layers["wide"].weight[1] *= 1e-6  # a scale that is subnormal in float16
        layers["eight"].weight *= torch.linspace(1, 2, 5).unsqueeze(1)
    return layers.to(dtype)


def integers(layers: nn.Module) -> dict[str, tuple[torch.Tensor, ...]]:
    return {
        f"{name}.{weight}": one.quantized_weight(weight)[:2]
        for name, one in quantized_modules(layers).items()
        for weight in one.weight_names
    }


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("precision", [Precision.rules, Precision.int8])
def test_integers_are_those_of_the_layers(dtype, precision, at_once, one_by_one):
    layers = network(dtype)
    set_precision(layers, precision, 0.5)
    expected = integers(layers)
    one_by_one.clear()
    for _ in range(2):
        with quantized_step(layers):
            found = integers(layers)
        assert len(at_once) == 1
        assert len(at_once.pop()) == len(expected) == 9
        assert not one_by_one
        for name, (codes, scale) in expected.items():
            assert torch.equal(found[name][0], codes), name
            assert torch.equal(found[name][1], scale), name
            assert found[name][1].dtype == scale.dtype
    integers(layers)
    assert len(one_by_one) == 9  # nothing is kept after the step


def test_on_a_cpu_each_layer_quantizes_its_own(monkeypatch):
    monkeypatch.setattr(ops, "quantize_weights", None)
    layers = network()
    set_precision(layers, Precision.rules)
    with quantized_step(layers):
        integers(layers)


def test_weights_of_several_types_take_a_launch_each(at_once):
    layers = network()
    layers["wide"].bfloat16()
    set_precision(layers, Precision.rules)
    with quantized_step(layers):
        assert [len(shapes) for shapes in at_once] == [8, 1]


@pytest.mark.parametrize(
    "rule",
    [
        Rule("odd", WeightSpec(4, symmetric=False)),
        Rule("odd", WeightSpec(4, granularity=WeightGranularity.per_tensor)),
        Rule("odd", WeightSpec(4, range=Range.full)),
        Rule("odd", WeightSpec(4, scale=WeightScale.search)),
        Rule("odd", WeightSpec(4, learned=True)),
        Rule("odd", WeightSpec(1)),
        Rule("odd", WeightSpec(4), sparsity=Sparsity(2, 4)),
        Rule("odd", None, ActivationSpec(8)),
        Rule("odd", None),
    ],
)
def test_other_specs_are_left_to_their_layers(rule, at_once, one_by_one):
    layers = nn.ModuleDict({"odd": nn.Linear(8, 4), "even": nn.Linear(8, 3)})
    prepare(layers, QuantConfig("test", [rule, Rule("**", WeightSpec(4))]))
    set_precision(layers, Precision.rules)
    with quantized_step(layers):
        assert at_once == [[(3, 8)]]
        if rule.weight is not None:
            one_by_one.clear()
            layers["odd"].quantized_weight()
            assert one_by_one == ["odd.weight"]


def test_weights_that_are_no_plain_parameters(at_once):
    layers = nn.ModuleDict(
        {"normed": weight_norm(nn.Linear(8, 4)), "turned": nn.Linear(8, 4), "twice": nn.Linear(8, 4).double()}
    )
    layers["turned"].weight = nn.Parameter(torch.randn(8, 4).t())
    prepare(layers, QuantConfig("test", [Rule("**", WeightSpec(4))]))
    set_precision(layers, Precision.rules)
    with quantized_step(layers):
        integers(layers)
    assert not at_once


def test_in_float_there_is_nothing_to_do(at_once):
    layers = network()
    set_precision(layers, Precision.float)
    with quantized_step(layers):
        pass
    assert not at_once


def test_a_change_of_precision_within_a_step(at_once):
    """A student that teaches itself runs at another precision for a while."""
    layers = network()
    set_precision(layers, Precision.rules)
    with quantized_step(layers):
        of_rules = integers(layers)
        with evaluated_at(layers, Precision.int8):
            assert integers(layers)["linear.weight"][0].abs().max() == 127
        assert torch.equal(integers(layers)["linear.weight"][0], of_rules["linear.weight"][0])


def test_the_first_weight_that_is_bad_is_named(at_once):
    layers = network()
    set_precision(layers, Precision.rules)
    with torch.no_grad():
        layers["embedding"].weight[0, 0] = 1e7
    with pytest.raises(UserError, match=r"embedding.weight: the largest weight is 1e\+07"), quantized_step(layers):
        integers(layers)
    with torch.no_grad():
        layers["depthwise"].weight[5, 0, 4] = float("nan")
    with pytest.raises(UserError, match=r"depthwise.weight: NaN or infinity"), quantized_step(layers):
        integers(layers)


def test_gradients_go_to_the_parameters(at_once):
    layers = network()
    set_precision(layers, Precision.rules)
    x = torch.randn(4, 12)
    layers["linear"](x).square().sum().backward()
    expected = layers["linear"].weight.grad.clone()
    layers.zero_grad()
    with quantized_step(layers):
        loss = layers["linear"](x).square().sum()
    loss.backward()
    assert torch.equal(layers["linear"].weight.grad, expected)
