"""Keeps the codes of the last activation, so that successive layers with the same input quantize it once.

The query, key and value layers of attention are such layers, in any network. The codes are dropped with the activation,
or when another one is quantized.
"""

import weakref
from collections.abc import Callable, Hashable
from typing import NamedTuple

import torch
from torch import Tensor

from nibble.quant.tensor import QuantizedTensor


class _Last(NamedTuple):
    x: "weakref.ref[Tensor]"
    version: int
    key: Hashable
    quantized: QuantizedTensor


# One for all threads: it is read and written as a whole, and only used for the tensor that it was computed from.
_last: _Last | None = None


def codes_of(x: Tensor, key: Hashable, quantize: Callable[[], QuantizedTensor]) -> QuantizedTensor:
    """quantize(), or its last result if that was for the same x, not changed since, and the same key.

    Args:
        x: the activation.
        key: how x is quantized.
        quantize: without a gradient.
    """
    global _last
    # A tensor made in inference mode has no version that tells whether it changed. A traced or compiled layer must not
    # depend on another one; a compiler merges equal calls itself.
    if x.is_inference() or torch.jit.is_tracing() or torch.compiler.is_compiling():
        return quantize()
    last = _last
    if last is None or last.x() is not x or (last.version, last.key) != (x._version, key):
        last = _Last(weakref.ref(x, _forget), x._version, key, quantize())
        _last = last
    return last.quantized


def _forget(x: "weakref.ref[Tensor]") -> None:
    global _last
    if _last is not None and _last.x is x:
        _last = None
