"""The only place where values are rounded to codes; `nibble.quant.numerics` and the operators' reference call it.

    q = clamp(round_half_even(x / s), lowest, highest)

Compiled operators round on their own; tests check that they give the same bits.
"""

import torch
from torch import Tensor

HIGHEST_INT8 = 127  # in the narrow range


def to_codes(x: Tensor, scale: Tensor, lowest: int | Tensor, highest: int | Tensor) -> Tensor:
    """q: the codes of x with scales that broadcast, in x's floating type."""
    return round_half_even(torch.div(x, scale)).clamp_(lowest, highest)  # type: ignore[arg-type]


def divide(x: Tensor, divisor: float) -> Tensor:
    """x / divisor in place, rounded once, on every device.

    On CUDA, torch multiplies by the reciprocal of a divisor that is a number, or a scalar on the CPU: the last bit of a
    scale would not be the CPU's, and then a code would not. It divides by a tensor there.
    """
    return x.div_(torch.full((), divisor, dtype=x.dtype, device=x.device) if x.is_cuda else divisor)


def round_half_even(x: Tensor) -> Tensor:
    """x rounded to the nearest integers, in place; ties go to the even integer."""
    return x.round_()


def without_zeros(scale: Tensor) -> Tensor:
    """Scales with 1 in place of 0, in place: a slice of zeros is represented exactly by any scale."""
    return scale.masked_fill_(scale == 0, 1.0)
