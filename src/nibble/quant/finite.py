"""Checks that scales are finite: at once, or on a GPU all at the end of a step, so that the CPU waits only once.

A scale is computed from the largest magnitude of a slice, so NaN or infinity in the slice shows in its scale.
"""

import math
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor

from nibble.errors import UserError

LATE_DEVICES = ("cuda",)  # where reading a value waits for everything that was launched


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
        fault: returns the message. The tensors that it reads must not change until then.

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

    Until then scales may be NaN or infinite, so nothing that is computed from them inside may be kept.

    Raises:
        UserError: a scale is not finite; the message is about the first one.
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
    """Whether all are finite: the maximum is NaN or infinite if any value is.

    True on the meta device, where tensors have no values.
    """
    return math.isfinite(scale.amax().item()) if scale.numel() and not scale.is_meta else True
