"""The codes of the activation that was quantized last: layers that take the same one in turn quantize it once.

So do the query, key and value layers of attention, in whatever network, with the same normalised frames. The codes are
forgotten with the activation, or when another is quantized.
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


# One for all threads: it is read and written as a whole, and only ever taken for the very tensor that it is of.
_last: _Last | None = None


def codes_of(x: Tensor, key: Hashable, quantize: Callable[[], QuantizedTensor]) -> QuantizedTensor:
    """quantize(), or what it gave for the same x, unchanged since, and the same key.

    Args:
        x: the activation.
        key: how it is quantized.
        quantize: without a gradient.
    """
    global _last
    # Those made in inference mode have no version to tell whether they changed. A layer that is traced or compiled must
    # be so on its own; a compiler merges equal calls itself.
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
