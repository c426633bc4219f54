"""Layers that take the same activation in turn quantize it once, and whatever has changed anew."""

import gc
import weakref

import pytest
import torch
from torch import Tensor, nn

from nibble.quant import last_codes, layer_input
from nibble.quant.convert import prepare, set_precision
from nibble.quant.numerics import quantize_activation
from nibble.quant.spec import ActivationSpec, Arithmetic, Precision, QuantConfig, Rule, WeightSpec
from nibble.quant.tensor import QuantizedTensor


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The layers that quantized an activation, in order."""
    names: list[str] = []

    def counted(x: Tensor, dims: tuple[int, ...], spec: ActivationSpec, name: str, *rest: Tensor) -> QuantizedTensor:
        names.append(name)
        return quantize_activation(x, dims, spec, name, *rest)

    monkeypatch.setattr(layer_input, "quantize_activation", counted)
    return names


def layers(*activations: ActivationSpec, arithmetic: Arithmetic = Arithmetic.native) -> nn.ModuleDict:
    """Linear layers q, k, v on 4 features, each with its own activation spec."""
    torch.manual_seed(0)
    model = nn.ModuleDict({name: nn.Linear(4, 3) for name in "qkv"})
    rules = [Rule(name, WeightSpec(4), spec) for name, spec in zip("qkv", activations, strict=True)]
    prepare(model, QuantConfig("test", rules, arithmetic))
    set_precision(model, Precision.rules)
    return model


@pytest.mark.parametrize("arithmetic", [Arithmetic.native, Arithmetic.fake])
def test_the_same_activation_is_quantized_once(made: list[str], arithmetic: Arithmetic) -> None:
    x = torch.randn(2, 5, 4, requires_grad=True)
    model = layers(*3 * [ActivationSpec(8)], arithmetic=arithmetic)
    together = [model[name](x) for name in "qkv"]
    assert made == ["q"]
    apart = [model[name](x.clone()) for name in "qkv"]
    assert made == ["q", "q", "k", "v"]
    for one, other in zip(together, apart, strict=True):
        assert torch.equal(one, other)
        slopes = torch.autograd.grad(one.sum(), x) + torch.autograd.grad(other.sum(), x)
        assert torch.equal(*slopes)


def test_what_changed_or_is_quantized_otherwise_is_quantized_anew(made: list[str]) -> None:
    x = torch.randn(5, 4)
    model = layers(ActivationSpec(8), ActivationSpec(4), ActivationSpec(8))
    model["q"](x)
    assert not torch.equal(model["k"](x), layers(*3 * [ActivationSpec(8)])["k"](x))
    x.mul_(2)
    model["v"](x)
    assert made[-1] == "v"
    assert torch.equal(model["v"](x), model["v"](x.clone()))


def test_static_scales_are_each_layers_own(made: list[str]) -> None:
    x = torch.randn(5, 4)
    model = layers(*3 * [ActivationSpec(8, static=True)])
    model["q"](10 * x)
    for name in "qkv":
        model[name](x)
    assert made == ["q", "q", "k", "v"]
    assert model["q"].activation_max > 2 * model["k"].activation_max


def test_codes_are_forgotten_with_their_activation() -> None:
    x = torch.randn(5, 4)
    with torch.no_grad():
        layers(*3 * [ActivationSpec(8)])["q"](x)
    codes = weakref.ref(last_codes._last.quantized.codes)
    assert codes() is not None
    del x
    gc.collect()
    assert codes() is None


def test_in_inference_mode_a_change_is_seen() -> None:
    model = layers(*3 * [ActivationSpec(8)])
    with torch.inference_mode():
        x = torch.randn(5, 4)
        model["q"](x)
        x.mul_(-1)
        assert torch.equal(model["q"](x), model["q"](x.clone()))
