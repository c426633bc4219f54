"""Caches values computed from parameters while the parameters are constant.

Two things tell that a parameter is constant:

- The caller says so. Inside `constant_parameters()`, a training step's forward pass, a value is computed once and
  kept until the end. In training nothing else can tell: some weights are computed anew at each access (weight_norm),
  and FSDP fills parameters without a trace.
- Its version says so. torch counts the changes of a tensor in place, so in evaluation, outside of such a step, a value
  is kept until its tensor has another version. Decoding uses the same weights step after step.
"""

import threading
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

from torch import Tensor

Value = TypeVar("Value")


class _Step(threading.local):
    values: dict[Hashable, Any] | None = None  # None outside of `constant_parameters`


_step = _Step()


@contextmanager
def constant_parameters() -> Iterator[None]:
    """Inside, no parameter changes in this thread, so caches keep what they compute until the end of the block."""
    before = _step.values
    _step.values = {} if before is None else before
    try:
        yield
    finally:
        _step.values = before


class _Kept(NamedTuple):
    tensor: Tensor
    version: int
    address: int
    value: Any


class ParameterCache:
    """Values computed from the parameters of one module. A copy of it starts empty."""

    def __init__(self) -> None:
        self._kept: dict[Hashable, _Kept] = {}

    def get(self, key: Hashable, make: Callable[[], Value], tensor: Tensor | None = None) -> Value:
        """The value of `key`: kept, or computed by `make`.

        Args:
            key: the name of the value.
            make: computes it from parameters, without a gradient.
            tensor: what the value is computed from, if its version is to tell whether it changed. None: only
                `constant_parameters` keeps the value.
        """
        # A tensor made in inference mode has no version, and one on the meta device has no values.
        if tensor is None or tensor.is_inference() or tensor.is_meta:
            return self._in_step(key, make)
        kept = self._kept.get(key)
        version, address = tensor._version, tensor.data_ptr()
        if kept is None or kept.tensor is not tensor or (kept.version, kept.address) != (version, address):
            kept = self._kept[key] = _Kept(tensor, version, address, self._in_step(key, make))
        found: Value = kept.value
        return found

    def put(self, key: Hashable, value: object) -> None:
        """Keep a value that was computed elsewhere until the end of `constant_parameters`, which must be active."""
        assert _step.values is not None, "only within constant_parameters"
        _step.values.setdefault((self, key), value)

    def clear(self) -> None:
        """Drop the values that versions keep."""
        self._kept.clear()

    def _in_step(self, key: Hashable, make: Callable[[], Value]) -> Value:
        values = _step.values
        if values is None:
            return make()
        if (self, key) not in values:
            values[self, key] = make()
        found: Value = values[self, key]
        return found

    def __reduce__(self) -> tuple[type["ParameterCache"], tuple[()]]:
        return ParameterCache, ()
