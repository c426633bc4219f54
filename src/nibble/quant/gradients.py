"""Straight-through gradients of rounding: which gradient a quantized value passes on, and to what.

Rounding passes the gradient through as if it were the identity, with the scale held constant. A scale that covers the
largest magnitude clips nothing; a scale that clips weights follows those weights, so they get their gradient too. Only
where a scale does not follow its values (a learned scale, or the static scale of an activation) do clipped values get
no gradient.
"""

import math
from typing import Any

import torch
from torch import Tensor

from nibble.quant.numerics import largest_code
from nibble.quant.tensor import QuantizedTensor, in_slices


def straight_through(x: Tensor, replacement: Tensor) -> Tensor:
    """`replacement` in the forward pass, the gradient of x in the backward pass."""
    replaced: Tensor = _StraightThrough.apply(x, replacement)
    return replaced


def inside_clip(x: Tensor, largest: Tensor) -> Tensor:
    """x, whose gradient is zero where |x| > largest."""
    return torch.where(x.detach().abs() <= largest, x, x.detach())


def learning_scale(weight: Tensor, log_scale: Tensor, quantized: QuantizedTensor, bits: int) -> Tensor:
    """The weight; its gradient goes on to the weight where it is not clipped, and to p = `log_scale`.

    dx~/dp = s (q - x / s) inside the clip, s q outside, over sqrt(K Q) (Esser et al., 2020, equations 3 and 5, with
    s proportional to e^p).
    """
    learning: Tensor = _LearningScale.apply(weight, log_scale, quantized, bits)
    return learning


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, replacement: Tensor) -> Tensor:
        ctx.dtype = x.dtype
        return replacement.view_as(replacement)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient.to(ctx.dtype), None


class _LearningScale(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, log_scale: Tensor, quantized: QuantizedTensor, bits: int) -> Tensor:
        ctx.save_for_backward(weight, log_scale, quantized.codes, quantized.scale)
        ctx.bits = bits
        return weight.view_as(weight)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None, None]:
        weight, log_scale, codes, scale = ctx.saved_tensors
        values, codes, slopes = (in_slices(part.to(scale.dtype), scale) for part in (weight, codes, gradient))
        steps = values / scale
        clipped = torch.zeros_like(steps, dtype=torch.bool) if ctx.bits == 1 else (steps - codes).abs() > 0.5
        error = torch.where(clipped, codes, codes - steps).mul_(slopes)
        dims = [dim for dim, size in enumerate(scale.shape) if size == 1]
        per_scale = (error.sum(dims, keepdim=True) * scale).reshape(log_scale.shape)
        per_scale /= math.sqrt(weight.numel() / log_scale.numel() * largest_code(ctx.bits))
        passed = slopes.masked_fill(clipped, 0.0).view(weight.shape).to(weight.dtype)
        return passed, per_scale.to(log_scale.dtype), None, None
