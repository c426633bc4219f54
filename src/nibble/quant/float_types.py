"""The floating types in which a quantized layer computes, and which it returns."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from nibble.quant.numerics import compute_type


def output_type(x: Tensor) -> torch.dtype:
    """The type of a float layer's result for x: the autocast's type, else that of x."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype


def value_type(x: Tensor) -> torch.dtype:
    """The type in which the values that codes stand for are multiplied: float32; on a GPU under autocast its type.

    There float32 would take some ten times as long. It is used off the grid (a ramp, noise, a float activation), and
    bfloat16 rounds a value by at most a quarter of its int8 code's step, half of what the code does already.
    """
    return output_type(x) if x.is_cuda and torch.is_autocast_enabled("cuda") else compute_type(x)


def float_island(x: Tensor) -> AbstractContextManager[object]:
    """No autocast inside, except on a GPU: see `value_type`."""
    inside = torch.is_autocast_enabled(x.device.type) and not x.is_cuda
    return torch.autocast(x.device.type, enabled=False) if inside else nullcontext()
