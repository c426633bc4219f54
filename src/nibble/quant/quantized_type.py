"""Chooses the quantized type for a float type, and finds subclasses that cannot be quantized.

A subclass with a forward of its own keeps it: `super().forward(...)` in it reaches the quantized product. So does
Parakeet's CTC head, a convolution that transposes its input, and MBart's embedding, which scales its output.

A subclass that computes its base's function in another way, say faster, has the class attribute `same_as_base = True`:
its own forward runs in float only.
"""

import inspect
from collections.abc import Iterator
from typing import Any

from torch import nn

from nibble.quant.attention import QuantMultiheadAttention
from nibble.quant.layer import QuantizedLayer
from nibble.quant.lstm import QuantLSTM
from nibble.quant.modules import QuantConv1d, QuantConv2d, QuantEmbedding, QuantLinear

QUANTIZED_TYPES: dict[type, type[QuantizedLayer]] = {
    nn.Linear: QuantLinear,
    nn.Conv1d: QuantConv1d,
    nn.Conv2d: QuantConv2d,
    nn.Embedding: QuantEmbedding,
    nn.LSTM: QuantLSTM,
    nn.MultiheadAttention: QuantMultiheadAttention,
}

# The output projection of nn.MultiheadAttention, whose rule applies to it too.
_NEVER = (nn.modules.linear.NonDynamicallyQuantizableLinear,)

_FORWARDS = ("forward", "_conv_forward")  # what a subclass may override to compute something else

_derived: dict[type, type[QuantizedLayer]] = {}  # the types that `quantized_type` made, each once


def quantized_type(float_type: type) -> type[QuantizedLayer] | None:
    """The quantized type for modules of `float_type`; None if there is none.

    That of a subclass inherits from the subclass and from the quantized type of what it extends.
    """
    if issubclass(float_type, (QuantizedLayer, *_NEVER)):
        return None
    if float_type in QUANTIZED_TYPES:
        return QUANTIZED_TYPES[float_type]
    if float_type not in _derived:
        found = ((base, quantized_type(base)) for base in float_type.__bases__)
        extended, quantized = next((pair for pair in found if pair[1] is not None), (None, None))
        if quantized is None:
            return None
        own: Any = getattr(float_type, "forward", None)
        around = own is not getattr(extended, "forward", None) and not getattr(float_type, "same_as_base", False)
        bases = (float_type, quantized) if around else (quantized, float_type)
        _derived[float_type] = type(f"Quant{float_type.__name__}", bases, {})
    return _derived[float_type]


def why_not(module: nn.Module, weight_names: tuple[str, ...]) -> str | None:
    """Why a float module of a known type cannot be quantized; None if it can.

    Args:
        module: of a type that has a quantized type.
        weight_names: the weights that would become codes.
    """
    if "forward" in vars(module):
        return "a forward that was put on the object, around its class's (module.forward = ...)"
    for name in weight_names:
        if name in vars(module):
            return f"a {name} that a hook computes; torch.nn.utils.parametrizations.weight_norm in its place can be"
    if getattr(type(module), "same_as_base", False):
        return None
    for function in _own_forwards(type(module)):
        code = getattr(inspect.unwrap(function), "__code__", None)
        names = set() if code is None else {*code.co_names, *code.co_freevars}
        if not {"super", "forward"} <= names:
            return "a forward of its own that does not call super().forward(...)"
        if used := names.intersection(weight_names):
            return f"a forward of its own that reads self.{min(used)}, which is gone once it is integers"
    return None


def _own_forwards(float_type: type) -> Iterator[Any]:
    """The forwards that stand before that of the known type."""
    for part in float_type.__mro__:
        if part in QUANTIZED_TYPES:
            return
        yield from (vars(part)[name] for name in _FORWARDS if name in vars(part))
