"""The only place where anything is rounded: training, freezing, packing, export and the reference use these equations.

    s  = max|x| over the reduced dimensions / Q          Q = 2^(b-1) - 1
    q  = clamp(round_half_even(x / s), lowest, highest)
    x~ = q s

Symmetric and signed; zero is always representable. A slice of zeros has scale 1. Gradients are straight-through: the
scale is held constant, and because every scale covers the largest magnitude, no value lies outside the clip, so the
gradient of x~ with respect to x is the identity.
"""

import math
from typing import Any

import torch
from torch import Tensor

from nibble.errors import UserError
from nibble.quant.spec import ActivationGranularity, ActivationSpec, Range, WeightGranularity, WeightSpec


def largest_code(bits: int) -> int:
    """Q = 2^(b-1) - 1."""
    return 2 ** (bits - 1) - 1


def code_bounds(bits: int, range_: Range) -> tuple[int, int]:
    """The lowest and the highest code."""
    highest = largest_code(bits)
    return (-highest - 1 if range_ is Range.full else -highest), highest


def absmax_scale(x: Tensor, dims: tuple[int, ...], bits: int, range_: Range) -> Tensor:
    """s: the scale of each slice of x over `dims`, which stay as dimensions of size 1. No slice may be empty."""
    highest = largest_code(bits)
    above, below = x.amax(dims, keepdim=True), x.amin(dims, keepdim=True)
    if range_ is Range.full:
        # The code -Q-1 has no positive partner: each side of zero is divided by the codes it has.
        return torch.maximum(above.div_(highest), below.div_(-highest - 1))
    return torch.maximum(above, below.neg_()).div_(highest + 0.5 if range_ is Range.half_step else highest)


def quantize(x: Tensor, scale: Tensor, bits: int, range_: Range) -> Tensor:
    """q: the codes of x, in x's floating type."""
    return torch.div(x, scale).round_().clamp_(*code_bounds(bits, range_))


def dequantize(codes: Tensor, scale: Tensor) -> Tensor:
    """x~: the values that codes stand for, in the scale's floating type."""
    # In place on a copy: a product of int8 and float32 tensors takes several times as long on CPU.
    return codes.to(scale.dtype, copy=True).mul_(scale)


def quantize_weight(weight: Tensor, spec: WeightSpec, name: str) -> tuple[Tensor, Tensor]:
    """Codes int8 and scales of a weight whose first dimension is the output channel.

    Scales have float16 values, because that is how they are stored, in the type computed with: (N, 1, ...) per channel
    or (1, 1, ...) per tensor.

    Raises:
        UserError: the weight has NaN or infinity, or is too large for a float16 scale.
    """
    weight = weight.detach().to(compute_type(weight))
    first = 1 if spec.granularity is WeightGranularity.per_channel else 0
    exact = absmax_scale(weight, tuple(range(first, weight.dim())), spec.bits, spec.range)
    scale = without_zeros(exact.to(torch.float16).to(exact.dtype))
    if not all_finite(exact):
        raise UserError(f"{name}: NaN or infinity in the weight; lower the learning rate or clip gradients harder")
    if not all_finite(scale):
        raise UserError(
            f"{name}: the largest weight is {float(weight.abs().max()):g}, so its scale overflows float16; "
            "lower the learning rate or raise the weight decay"
        )
    return quantize(weight, scale, spec.bits, spec.range).to(torch.int8), scale


def quantize_activation(x: Tensor, dims: tuple[int, ...], spec: ActivationSpec, name: str) -> tuple[Tensor, Tensor]:
    """Codes, in a floating type, and scales of an activation, one for each slice over `dims`.

    Raises:
        UserError: x has NaN or infinity.
    """
    x = x.detach().to(compute_type(x))
    if not x.numel():
        return x, x.new_ones([1 if dim in dims else size for dim, size in enumerate(x.shape)])
    scale = absmax_scale(x, dims, spec.bits, spec.range)
    if not all_finite(scale):
        raise UserError(
            f"{name}: NaN or infinity in the input; look at the layers before it, "
            "lower the learning rate or clip gradients harder"
        )
    scale = without_zeros(scale)
    return quantize(x, scale, spec.bits, spec.range), scale


def activation_dims(spec: ActivationSpec, dim: int) -> tuple[int, ...]:
    """The dimensions of an activation (B, ..., K) of `dim` dimensions that share a scale in a product of rows."""
    if spec.granularity is ActivationGranularity.per_token or dim == 1:
        return (dim - 1,)
    return tuple(range(1, dim))


def compute_type(x: Tensor) -> torch.dtype:
    """The type scales and codes are computed in: float32, or float64 for float64."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def without_zeros(scale: Tensor) -> Tensor:
    """Scales with 1 in place of 0: a slice of zeros is represented exactly by any scale."""
    return scale.masked_fill_(scale == 0, 1.0)


def all_finite(scale: Tensor) -> bool:
    """Whether no scale is NaN or infinite; a maximum passes both on, so this stands for the whole tensor."""
    return math.isfinite(scale.amax().item()) if scale.numel() else True


def straight_through(x: Tensor, replacement: Tensor) -> Tensor:
    """`replacement` in the forward pass, the gradient of x in the backward pass."""
    replaced: Tensor = _StraightThrough.apply(x, replacement)
    return replaced


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, replacement: Tensor) -> Tensor:
        ctx.dtype = x.dtype
        return replacement.view_as(replacement)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient.to(ctx.dtype), None
