"""The contract of `WeightSource`, for every form that a layer's weight takes."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nibble.quant.analog_spec import AnalogSpec
from nibble.quant.convert import freeze, prepare, prune, set_precision
from nibble.quant.linear_product import integer_linear
from nibble.quant.spec import ActivationSpec, Arithmetic, Precision, QuantConfig, Rule, Sparsity, WeightSpec
from nibble.quant.tensor import Factor, QuantizedTensor
from nibble.quant.weight_source import (
    AnalogWeight,
    FakeWeight,
    FloatWeight,
    FrozenWeight,
    NativeWeight,
    NoisyWeight,
    WeightSource,
)

A8 = ActivationSpec(8)
ANALOG = AnalogSpec(training_noise=1.0)
# the weight's spec, the arithmetic, the blend -> the form
FORMS = {
    "float": (None, Arithmetic.native, 1.0, FloatWeight),
    "fake": (WeightSpec(4), Arithmetic.fake, 1.0, FakeWeight),
    "fake, asymmetric": (WeightSpec(4, symmetric=False), Arithmetic.fake, 1.0, FakeWeight),
    "ramp": (WeightSpec(4), Arithmetic.native, 0.5, FakeWeight),
    "native": (WeightSpec(4), Arithmetic.native, 1.0, NativeWeight),
    "native, groups": (WeightSpec(4, group_size=4), Arithmetic.native, 1.0, NativeWeight),
    "noise": (WeightSpec(4), Arithmetic.noise, 1.0, NoisyWeight),
    "analog": (None, Arithmetic.native, 1.0, AnalogWeight),
    "frozen": (WeightSpec(4), Arithmetic.native, 1.0, FrozenWeight),
    "frozen, fake": (WeightSpec(4), Arithmetic.fake, 1.0, FrozenWeight),
}


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(params=[None, Sparsity(2, 4)], ids=["dense", "pruned"])
def layer(form: str, request: pytest.FixtureRequest) -> nn.Module:
    spec, arithmetic, blend, _ = FORMS[form]
    torch.manual_seed(0)
    layer = nn.Sequential(nn.Linear(8, 6, bias=False))
    rule = Rule("**", spec, A8, request.param) if form != "analog" else Rule("**", None, A8, analog=ANALOG)
    prepare(layer, QuantConfig("test", [rule], arithmetic))
    set_precision(layer, Precision.rules, blend)
    prune(layer)
    if form.startswith("frozen"):
        freeze(layer)
    return layer[0]


def product(source: WeightSource, x: Tensor) -> Tensor:
    """x, which has codes with a scale of 1, times the weight, on what the operand is made of."""
    operand = source.operand()
    if isinstance(operand, Tensor):
        return F.linear(x, operand)
    given = Factor(QuantizedTensor(x.detach().to(torch.int8), torch.ones(len(x), 1)), x)
    return integer_linear(given, operand, None, torch.float32)


def test_the_form_is_the_one_expected(form: str, layer: nn.Module) -> None:
    assert type(layer.weight_source()) is FORMS[form][3]
    on_codes = form in ("native", "native, groups", "frozen")
    assert isinstance(layer.weight_source().operand(), Factor) == on_codes


def test_values_have_the_shape_of_the_weight_and_are_near_it(form: str, layer: nn.Module) -> None:
    values = layer.weight_source().values()
    assert (values.shape, values.dtype) == ((6, 8), torch.float32)
    if not form.startswith("frozen"):
        mask = layer._buffers.get("weight_mask", torch.ones(6, 8))
        step = (layer.weight.amax() - layer.weight.amin()) / 7
        assert ((values - layer.weight) * mask).abs().max() <= step


def test_a_product_of_the_operand_is_one_of_the_values(layer: nn.Module) -> None:
    x = torch.randint(-127, 128, (5, 8)).float()
    torch.manual_seed(1)  # for noise, which each call draws anew
    found = product(layer.weight_source(), x)
    torch.manual_seed(1)
    torch.testing.assert_close(found, F.linear(x, layer.weight_source().values()), rtol=1e-6, atol=1e-4)


def test_gradients_are_straight_through(form: str, layer: nn.Module) -> None:
    slope = torch.randn(6, 8)
    x = torch.randint(-127, 128, (5, 8)).float()
    source = layer.weight_source()
    if form.startswith("frozen"):
        assert not source.values().requires_grad
        assert not list(layer.parameters())
        return
    (by_values,) = torch.autograd.grad(source.values(), layer.weight, slope)
    (by_product,) = torch.autograd.grad(product(layer.weight_source(), x).sum(), layer.weight)
    if form != "noise":  # it reaches the largest weights through the scale, too
        assert torch.equal(by_values, slope)
        torch.testing.assert_close(by_product, x.sum(0).expand(6, 8))
    assert by_values.abs().min() > 0


def test_pruned_weights_are_zero(form: str, layer: nn.Module) -> None:
    if layer.rule.sparsity is None or form == "ramp":  # on a ramp a pruned weight fades
        return
    source = layer.weight_source()
    values, operand = source.values().detach(), source.operand()
    assert ((values == 0).view(-1, 4).sum(1) >= 2).all()
    if isinstance(operand, Factor):
        assert ((operand.quantized.codes == 0).view(-1, 4).sum(1) >= 2).all()
