"""Modules without storage: names, types and shapes alone, however large what they describe."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import init
from torch.overrides import TorchFunctionMode

_DRAW = (Tensor.normal_, Tensor.uniform_, init.normal_, init.uniform_)


@contextmanager
def shapes_only() -> Iterator[None]:
    """What is created inside is on the device "meta", and is not initialised.

    Torch draws the values of such tensors too, to nobody's use: through `torch._refs`, which imports the compiler, and
    that takes a second and 85 MB.
    """
    with torch.device("meta"), _NothingDrawn():
        yield


class _NothingDrawn(TorchFunctionMode):
    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        tensor = args[0] if args else given.get("tensor")
        if func in _DRAW and isinstance(tensor, Tensor) and tensor.is_meta:
            return tensor
        return func(*args, **given)
