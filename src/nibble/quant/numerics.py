"""What becomes of a value: training, freezing, packing and export use these equations.

    s  = max|x| over the reduced dimensions / Q          Q = 2^(b-1) - 1
    q  = clamp(round_half_even(x / s), lowest, highest)
    x~ = q s

Signed; zero is always representable, but for weights of 1 bit (q = sign x, s = mean|x|). A slice of zeros has scale 1.
The second equation stands in `nibble.kernels.rounding`, the only place where anything is rounded to a code.
Asymmetric weights have a zero point z, and q = clamp(round(x / s) + z, lowest, highest) - z, which fits int8, so that a
product needs no correction. `WeightSpec.scale` and `learned` give other s.

Gradients are straight-through, with the scale held constant: the identity. A scale that covers the largest magnitude
clips nothing; one that clips weights follows those weights, so they get their gradient too. Only where a scale does not
follow (learned, or static of an activation) has what is clipped no gradient.
"""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from nibble.kernels import ops
from nibble.kernels.rounding import divide, round_half_even, to_codes, without_zeros
from nibble.quant.finite import require_finite
from nibble.quant.spec import (
    ActivationGranularity,
    ActivationSpec,
    Range,
    WeightGranularity,
    WeightScale,
    WeightSpec,
)

CLIP_FACTORS = tuple(1 - 0.05 * step for step in range(17))  # of `WeightScale.search`: 1.0 ... 0.2


class Integers(NamedTuple):
    """A weight as integers: value = codes x scale."""

    codes: Tensor  # int8, the weight's shape; less the zero point
    scale: Tensor  # (N, 1, ...) per channel, (1, 1, ...) per tensor, (N, K / group, 1) in groups
    zero: Tensor | None = None  # int8, the scale's shape: what was taken from the codes; None if symmetric


def largest_code(bits: int) -> int:
    """Q = 2^(b-1) - 1, and 1 for a sign."""
    return max(2 ** (bits - 1) - 1, 1)


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
        return torch.maximum(divide(above, highest), divide(below, -highest - 1))
    largest = torch.maximum(above, below.neg_())
    return divide(largest, highest + 0.5 if range_ is Range.half_step else highest)


def quantize(x: Tensor, scale: Tensor, bits: int, range_: Range) -> Tensor:
    """q: the codes of x, in x's floating type."""
    if bits == 1:
        return torch.where(x >= 0, 1.0, -1.0).to(x.dtype)
    return to_codes(x, scale, *code_bounds(bits, range_))


def dequantize(codes: Tensor, scale: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """x~: the values that codes stand for, computed in the scale's floating type; of type `dtype`, if it is given."""
    layout = torch.contiguous_format if scale.dim() > codes.dim() else torch.preserve_format
    if codes.is_cuda:  # one pass over memory: a byte is read and a value of `dtype` written
        values = torch.empty_like(codes, dtype=dtype or scale.dtype, memory_format=layout)
        torch.mul(in_slices(codes, scale), scale, out=in_slices(values, scale))
        return values
    # In place on a copy: a product of int8 and float32 tensors takes several times as long on CPU.
    values = codes.to(scale.dtype, copy=True, memory_format=layout)
    in_slices(values, scale).mul_(scale)
    return values if dtype is None else values.to(dtype)


def in_slices(weight: Tensor, scale: Tensor) -> Tensor:
    """A weight so shaped that its scale broadcasts: (N, K) -> (N, K / group, group) for scales of groups."""
    return weight.reshape(*scale.shape[:-1], -1) if scale.dim() > weight.dim() else weight


def quantize_weight(weight: Tensor, spec: WeightSpec, name: str, log_scale: Tensor | None = None) -> Integers:
    """Codes, scales and zero points of a weight whose first dimension is the output channel.

    Scales have float16 values, because that is how they are stored, in the type computed with.

    Args:
        weight: (N, ...); (N, K) with groups.
        spec: width, scales and range.
        name: for the message.
        log_scale: p, one a scale: the scale is multiplied by e^p.

    Raises:
        UserError: the weight has NaN or infinity, or is too large for a float16 scale.
    """
    weight = weight.detach().to(compute_type(weight))
    slices = weight.reshape(weight.shape[0], -1, spec.group_size) if spec.group_size else weight
    first = 1 if spec.granularity is WeightGranularity.per_channel else 0
    dims = (2,) if spec.group_size else tuple(range(first, weight.dim()))
    exact = weight_scale(slices, dims, spec)
    if log_scale is not None:
        exact = exact * log_scale.detach().exp().view(exact.shape)
    scale = half(exact) if spec.bits == 1 else stored(exact)  # a sign times 0 is how a slice of zeros stays zero
    require_finite(scale, lambda: weight_fault(weight, name))
    if spec.symmetric:
        return Integers(quantize(slices, scale, spec.bits, spec.range).to(torch.int8).view(weight.shape), scale)
    lowest, highest = code_bounds(spec.bits, Range.full)
    zero = round_half_even(lowest - slices.amin(dims, keepdim=True).clamp_(max=0).div_(scale)).clamp_(lowest, highest)
    codes = round_half_even(torch.div(slices, scale)).add_(zero).clamp_(lowest, highest).sub_(zero)
    return Integers(codes.to(torch.int8).view(weight.shape), scale, zero.to(torch.int8))


def weight_scale(slices: Tensor, dims: tuple[int, ...], spec: WeightSpec) -> Tensor:
    """s: the scale of each slice of a weight over `dims`, as its spec says, before it is rounded for storage."""
    if not spec.symmetric:
        above, below = slices.amax(dims, keepdim=True), slices.amin(dims, keepdim=True)
        return divide(above.clamp_(min=0).sub_(below.clamp_(max=0)), 2**spec.bits - 1)
    if spec.scale_rule is WeightScale.mean:
        return slices.abs().mean(dims, keepdim=True)
    widest = absmax_scale(slices, dims, spec.bits, spec.range)
    return least_squares_scale(slices, dims, widest, spec) if spec.scale_rule is WeightScale.search else widest


def least_squares_scale(slices: Tensor, dims: tuple[int, ...], widest: Tensor, spec: WeightSpec) -> Tensor:
    """Of `widest` times each of `CLIP_FACTORS`, the scale with which sum (x - x~)^2 is least; the widest of equals."""
    best, least = widest, torch.full_like(widest, math.inf)
    for factor in CLIP_FACTORS:
        scale = stored(widest * factor)
        error = (
            quantize(slices, scale, spec.bits, spec.range).mul_(scale).sub_(slices).square_().sum(dims, keepdim=True)
        )
        better = error < least
        best, least = torch.where(better, widest * factor, best), torch.where(better, error, least)
    return best


def half(scale: Tensor) -> Tensor:
    """A scale of float16 precision, as it is stored."""
    return scale.to(torch.float16).to(scale.dtype)


def stored(scale: Tensor) -> Tensor:
    """A scale to divide by: of float16 precision, 1 in place of 0."""
    return without_zeros(half(scale))


def quantize_activation(
    x: Tensor, dims: tuple[int, ...], spec: ActivationSpec, name: str, largest: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Codes int8 and scales of an activation, one for each slice over `dims`.

    Args:
        x: the activation.
        dims: what shares a scale.
        spec: width and range.
        name: for the message.
        largest: of a static spec, the magnitude of the highest code: a scalar, for all slices.

    Raises:
        UserError: x has NaN or infinity.
    """
    x = x.detach()
    shape = [1 if dim in dims or dim - x.dim() in dims else size for dim, size in enumerate(x.shape)]
    if not x.numel():
        return x.to(torch.int8), torch.ones(shape, dtype=compute_type(x), device=x.device)
    rows = _as_rows(x, dims) if spec.bits == 8 and spec.range is Range.narrow and largest is None else None
    if rows is not None:
        codes, scale = ops.quantize_rows(rows)
        require_finite_input(scale, name)
        return codes.as_strided(x.shape, x.stride()), scale.view(shape)
    x = x.to(compute_type(x))
    exact = absmax_scale(x, dims, spec.bits, spec.range)
    require_finite_input(exact, name)
    scale = without_zeros(exact) if largest is None else static_scale(largest.to(x.dtype), spec).expand(shape)
    return quantize(x, scale, spec.bits, spec.range).to(torch.int8), scale


def _as_rows(x: Tensor, dims: tuple[int, ...]) -> Tensor | None:
    """x as a contiguous matrix with a row for each scale, without a copy, for `ops.quantize_rows`; None if it is none.

    A convolution's x (B, C, H, W) may be in channels-last layout: within a row, the order does not matter.
    """
    if x.dtype == torch.float64:
        return None
    if dims in ((-1,), (x.dim() - 1,)):
        return x.reshape(-1, x.shape[-1]) if x.is_contiguous() else None
    if dims == tuple(range(1, x.dim())):
        if x.is_contiguous():
            return x.flatten(1)
        if x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last):
            return x.permute(0, 2, 3, 1).flatten(1)
    return None


def weight_fault(weight: Tensor, name: str) -> str:
    """What is wrong with a weight that has a scale of NaN or infinity."""
    if not weight.isfinite().all():
        return f"{name}: NaN or infinity in the weight; lower the learning rate or clip gradients harder"
    return (
        f"{name}: the largest weight is {float(weight.abs().max()):g}, so its scale overflows float16; "
        "lower the learning rate or raise the weight decay"
    )


def require_finite_input(scale: Tensor, name: str) -> None:
    """As `require_finite`, of the scales of a layer's input."""
    require_finite(
        scale,
        lambda: (
            f"{name}: NaN or infinity in the input; look at the layers before it, "
            "lower the learning rate or clip gradients harder"
        ),
    )


def static_scale(largest: Tensor, spec: ActivationSpec) -> Tensor:
    """The scale, a scalar, with which `largest` has the highest code; `largest` as it is stored, in float16."""
    divisor = largest_code(spec.bits) + (0.5 if spec.range is Range.half_step else 0.0)
    return divide(stored(largest), divisor)


def activation_dims(spec: ActivationSpec, dim: int) -> tuple[int, ...]:
    """The dimensions of an activation (B, ..., K) of `dim` dimensions that share a scale in a product of rows."""
    if spec.granularity is ActivationGranularity.per_token or dim == 1:
        return (dim - 1,)
    return tuple(range(1, dim))


def compute_type(x: Tensor) -> torch.dtype:
    """The type scales and codes are computed in: float32, or float64 for float64."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def straight_through(x: Tensor, replacement: Tensor) -> Tensor:
    """`replacement` in the forward pass, the gradient of x in the backward pass."""
    replaced: Tensor = _StraightThrough.apply(x, replacement)
    return replaced


def inside_clip(x: Tensor, largest: Tensor) -> Tensor:
    """x, whose gradient is zero where |x| > largest."""
    return torch.where(x.detach().abs() <= largest, x, x.detach())


def learning_scale(weight: Tensor, log_scale: Tensor, integers: Integers, bits: int) -> Tensor:
    """The weight, whose gradient (as that of x~) goes on to the weight where it is not clipped, and to p = `log_scale`.

    dx~/dp = s (q - x / s) inside the clip, s q outside, over sqrt(K Q) (Esser et al., 2020, equations 3 and 5, by way
    of p).
    """
    learning: Tensor = _LearningScale.apply(weight, log_scale, integers.codes, integers.scale, bits)
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
    def forward(ctx: Any, weight: Tensor, log_scale: Tensor, codes: Tensor, scale: Tensor, bits: int) -> Tensor:
        ctx.save_for_backward(weight, log_scale, codes, scale)
        ctx.bits = bits
        return weight.view_as(weight)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        weight, log_scale, codes, scale = ctx.saved_tensors
        values, codes, slopes = (in_slices(part.to(scale.dtype), scale) for part in (weight, codes, gradient))
        steps = values / scale
        clipped = torch.zeros_like(steps, dtype=torch.bool) if ctx.bits == 1 else (steps - codes).abs() > 0.5
        error = torch.where(clipped, codes, codes - steps).mul_(slopes)
        dims = [dim for dim, size in enumerate(scale.shape) if size == 1]
        per_scale = (error.sum(dims, keepdim=True) * scale).reshape(log_scale.shape)
        per_scale /= math.sqrt(weight.numel() / log_scale.numel() * largest_code(ctx.bits))
        passed = slopes.masked_fill(clipped, 0.0).view(weight.shape).to(weight.dtype)
        return passed, per_scale.to(log_scale.dtype), None, None, None
