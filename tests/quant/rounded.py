"""Layers rounded by one rule, and what comes out of them."""

import copy

import torch
from torch import Tensor, nn

from nibble.quant.convert import prepare, set_precision
from nibble.quant.spec import Arithmetic, Precision, QuantConfig, Rule


def by_rule(layer: nn.Module, rule: Rule, arithmetic: Arithmetic, blend: float = 1.0) -> nn.Module:
    """A copy of a float layer, quantized by `rule`, at the precision of the rules."""
    layer = copy.deepcopy(layer)
    prepare(layer, QuantConfig("test", [rule], arithmetic))
    set_precision(layer, Precision.rules, blend)
    return layer


def first(out: Tensor | tuple) -> Tensor:
    """The output of a layer, without the states that an LSTM returns beside it."""
    return out if isinstance(out, Tensor) else out[0]


def gradients(layer: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """The gradients of the input and of each parameter, for one gradient of the output."""
    x = x.clone().requires_grad_()
    out = first(layer(x))
    out.backward(torch.linspace(-1, 1, out.numel()).view_as(out).to(out.dtype))
    return {"input": x.grad, **{name: parameter.grad for name, parameter in layer.named_parameters()}}
