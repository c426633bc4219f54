"""The quantization equations. Training, freezing, packing and export all use these functions.

    s  = max|x| over the reduced dimensions / Q          Q = 2^(b-1) - 1
    q  = clamp(round_half_even(x / s), lowest, highest)
    x~ = q s

Codes are signed, and zero always has one, except in 1-bit weights (q = sign x, s = mean|x|). A slice is the part of a
tensor that shares a scale; a slice of zeros has scale 1. The second equation is computed in `nibble.kernels.rounding`,
the only place where a value is rounded to a code, the third in `nibble.quant.tensor`.

Asymmetric weights have a zero point z: q = clamp(round(x / s), lowest - z, highest - z), which fits int8, so that a
product of codes needs no correction. `WeightSpec.scale` and `learned` choose other scales.

Gradients are straight-through: `nibble.quant.gradients`.
"""

import math

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
from nibble.quant.tensor import QuantizedTensor

CLIP_FACTORS = tuple(1 - 0.05 * step for step in range(17))  # of `WeightScale.search`: 1.0 ... 0.2


def largest_code(bits: int) -> int:
    """Q = 2^(b-1) - 1; 1 for 1 bit."""
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


def quantize(x: Tensor, scale: Tensor, bits: int, range_: Range, zero: Tensor | None = None) -> Tensor:
    """q: the codes of x with the zero point subtracted, if there is one; in x's floating type."""
    if bits == 1:
        return torch.where(x >= 0, 1.0, -1.0).to(x.dtype)
    lowest, highest = code_bounds(bits, range_)
    if zero is None:
        return to_codes(x, scale, lowest, highest)
    return to_codes(x, scale, lowest - zero, highest - zero)


def quantize_weight(weight: Tensor, spec: WeightSpec, name: str, log_scale: Tensor | None = None) -> QuantizedTensor:
    """Quantize a weight whose first dimension is the output channel.

    Scales have float16 values, because they are stored in float16, and the type that is computed with.

    Args:
        weight: (N, ...); (N, K) with groups.
        spec: width, scales and range.
        name: for the message.
        log_scale: p, one for each scale: the scale is multiplied by e^p.

    Raises:
        UserError: the weight has NaN or infinity, or is too large for a float16 scale.
    """
    weight = weight.detach().to(compute_type(weight))
    slices = weight.reshape(weight.shape[0], -1, spec.group_size) if spec.group_size else weight
    first = 1 if spec.granularity is WeightGranularity.per_channel else 0
    dims = (2,) if spec.group_size else tuple(range(first, weight.dim()))
    if weight.is_meta:
        return _outline(weight, slices, dims, spec)
    exact = weight_scale(slices, dims, spec)
    if log_scale is not None:
        exact = exact * log_scale.detach().exp().view(exact.shape)
    scale = half(exact) if spec.bits == 1 else stored(exact)  # at 1 bit, scale 0 is how a slice of zeros stays zero
    require_finite(scale, lambda: weight_fault(weight, name))
    zero, range_ = None, spec.range
    if not spec.symmetric:
        zero, range_ = _zero_point(slices, dims, scale, spec.bits), Range.full
    codes = quantize(slices, scale, spec.bits, range_, zero).to(torch.int8).view(weight.shape)
    return QuantizedTensor(codes, scale, None if zero is None else zero.to(torch.int8))


def _outline(weight: Tensor, slices: Tensor, dims: tuple[int, ...], spec: WeightSpec) -> QuantizedTensor:
    """Shapes and types alone, of a weight without storage.

    Torch computes on such tensors through the compiler, whose import takes a second and 85 MB.
    """
    scale = slices.new_empty([1 if dim in dims else size for dim, size in enumerate(slices.shape)])
    zero = None if spec.symmetric else torch.empty_like(scale, dtype=torch.int8)
    return QuantizedTensor(torch.empty_like(weight, dtype=torch.int8), scale, zero)


def _zero_point(slices: Tensor, dims: tuple[int, ...], scale: Tensor, bits: int) -> Tensor:
    """z: the code of 0 in each slice, such that the smallest value has the lowest code; in the slices' type."""
    lowest, highest = code_bounds(bits, Range.full)
    below = slices.amin(dims, keepdim=True).clamp_(max=0)
    return round_half_even(lowest - below.div_(scale)).clamp_(lowest, highest)


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
    """The multiple of `widest` by one of `CLIP_FACTORS` that gives the least sum (x - x~)^2; the widest of equals."""
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
    """A scale rounded to float16, the precision in which it is stored."""
    return scale.to(torch.float16).to(scale.dtype)


def stored(scale: Tensor) -> Tensor:
    """A scale to divide by: rounded to float16, and 1 in place of 0."""
    return without_zeros(half(scale))


def quantize_activation(
    x: Tensor, dims: tuple[int, ...], spec: ActivationSpec, name: str, largest: Tensor | None = None
) -> QuantizedTensor:
    """Quantize an activation, with one scale for each slice over `dims`.

    Args:
        x: the activation.
        dims: the dimensions that share a scale.
        spec: width and range.
        name: for the message.
        largest: for a static spec, the magnitude that has the highest code: a scalar, for all slices.

    Raises:
        UserError: x has NaN or infinity.
    """
    x = x.detach()
    shape = [1 if dim in dims or dim - x.dim() in dims else size for dim, size in enumerate(x.shape)]
    if not x.numel():
        return QuantizedTensor(x.to(torch.int8), torch.ones(shape, dtype=compute_type(x), device=x.device))
    rows = _as_rows(x, dims) if spec.bits == 8 and spec.range is Range.narrow and largest is None else None
    if rows is not None:
        codes, scale = ops.quantize_rows(rows)
        require_finite_input(scale, name)
        return QuantizedTensor(codes.as_strided(x.shape, x.stride()), scale.view(shape))
    x = x.to(compute_type(x))
    exact = absmax_scale(x, dims, spec.bits, spec.range)
    require_finite_input(exact, name)
    scale = without_zeros(exact) if largest is None else static_scale(largest.to(x.dtype), spec).expand(shape)
    return QuantizedTensor(quantize(x, scale, spec.bits, spec.range).to(torch.int8), scale)


def _as_rows(x: Tensor, dims: tuple[int, ...]) -> Tensor | None:
    """x as a contiguous matrix with one row for each scale, for `ops.quantize_rows`; None if that needs a copy.

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
    """The message about a weight whose scale is NaN or infinite."""
    if not weight.isfinite().all():
        return f"{name}: NaN or infinity in the weight; lower the learning rate or clip gradients harder"
    return (
        f"{name}: the largest weight is {float(weight.abs().max()):g}, so its scale overflows float16; "
        "lower the learning rate or raise the weight decay"
    )


def require_finite_input(scale: Tensor, name: str) -> None:
    """Raise `UserError` if a scale of the input of the layer `name` is not finite; see `require_finite`."""
    require_finite(
        scale,
        lambda: (
            f"{name}: NaN or infinity in the input; look at the layers before it, "
            "lower the learning rate or clip gradients harder"
        ),
    )


def static_scale(largest: Tensor, spec: ActivationSpec) -> Tensor:
    """The scale, a scalar, with which `largest` has the highest code. `largest` is rounded to float16, as stored."""
    divisor = largest_code(spec.bits) + (0.5 if spec.range is Range.half_step else 0.0)
    return divide(stored(largest), divisor)


def activation_dims(spec: ActivationSpec, dim: int) -> tuple[int, ...]:
    """The dimensions of an activation (B, ..., K) of `dim` dimensions that share a scale in a product of rows."""
    if spec.granularity is ActivationGranularity.per_token or dim == 1:
        return (dim - 1,)
    return tuple(range(1, dim))


def compute_type(x: Tensor) -> torch.dtype:
    """The type in which scales and codes are computed: float32, or float64 for float64."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32
