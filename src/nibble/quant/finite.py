"""Checks that scales are finite: at once, or on a GPU all at the end of a step, which so waits for the GPU once.

A scale is made from the largest magnitude of what it is for, so NaN and infinity come through to it.
"""

import math
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor

from nibble.errors import UserError

LATE_DEVICES = ("cuda",)  # where to ask for a value is to wait for all that was launched


class _Check(NamedTuple):
    scale: Tensor
    fault: Callable[[], str]


class _Late(threading.local):
    checks: list[_Check] | None = None  # None outside `checked_at_end`


_late = _Late()


def require_finite(scale: Tensor, fault: Callable[[], str]) -> None:
    """Raise an error if a scale is NaN or infinite; on a GPU within `checked_at_end`, there.

    Args:
        scale: of any shape.
        fault: makes the message. Tensors that it reads must stay as they are.

    Raises:
        UserError: a scale is not finite.
    """
    if _late.checks is not None and scale.device.type in LATE_DEVICES:
        if scale.numel():
            # In a row: of one scale with gaps in memory, torch would take the largest of all one by one.
            _late.checks.append(_Check(scale.detach().reshape(-1), fault))
    elif not _all_finite(scale):
        raise UserError(fault())


@contextmanager
def checked_at_end() -> Iterator[None]:
    """Inside, scales on a GPU are checked when the outermost such block ends. For the thread that enters.

    Until then codes may be of scales that are not finite, so nothing that lasts may be made of them inside.

    Raises:
        UserError: of the first scale that is not finite.
    """
    if _late.checks is not None:
        yield
        return
    checks = _late.checks = []
    try:
        yield
    finally:
        _late.checks = None
    if checks and not _largest_of_each(checks).isfinite().all():
        bad = _largest_of_each(checks).isfinite().logical_not_().tolist().index(True)
        raise UserError(checks[bad].fault())


def _largest_of_each(checks: list[_Check]) -> Tensor:
    """The largest of each of the scales (n,), in a few launches for all."""
    return torch.stack(torch._foreach_max([check.scale for check in checks]))


def _all_finite(scale: Tensor) -> bool:
    """Whether all are finite; a maximum passes on NaN and infinity, so it stands for the whole tensor.

    On the meta device, where tensors have shapes and no values, it is so.
    """
    return math.isfinite(scale.amax().item()) if scale.numel() and not scale.is_meta else True
