"""Products of integer codes, with the gradients of the product of the values they stand for.

    y  = (q_x . q_w) s_x s_w + b       forward, accumulated in int32
    dx = dy . w~    dw = dy^T . x~     backward, straight-through, in the type of dy

One int8 copy of the input is kept for the backward pass: a quarter of what a float layer keeps.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from nibble.kernels import ops
from nibble.quant.numerics import dequantize


@dataclass(frozen=True)
class Geometry:
    """How a 2-D convolution moves."""

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int


def integer_linear(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    x_codes: Tensor,
    x_scale: Tensor,
    w_codes: Tensor,
    w_scale: Tensor,
    dtype: torch.dtype,
    packed: Tensor | None = None,
    in_float: bool = False,
) -> Tensor:
    """The linear product of int8 codes x_codes (..., K) and w_codes (N, K): (..., N) of type `dtype`.

    Args:
        x: (..., K), what x_codes were made from; receives the gradient.
        weight: (N, K), what w_codes were made from; receives the gradient. None if frozen.
        bias: (N,) or None.
        x_codes: (..., K).
        x_scale: (..., 1).
        w_codes: (N, K).
        w_scale: (N, 1) or (1, 1), or (N, K / group, 1).
        dtype: of the result.
        packed: w_codes as `ops.linear_w4a8` takes them, if they are of 4 bits and frozen.
        in_float: sums are taken by `float_sums`, on a GPU.
    """
    shape, outputs = x_codes.shape[:-1], w_codes.shape[0]
    rows = x_codes.reshape(shape.numel(), x_codes.shape[-1])
    row_scale = x_scale.expand(*shape, 1).reshape(-1, 1)
    given = rows, row_scale, w_codes, w_scale, dtype, packed, in_float
    product: Tensor
    product = _IntegerLinear.apply(x, weight, bias, *given) if torch.is_grad_enabled() else _linear(bias, *given)
    return product.view(*shape, outputs)  # out here: a function's result that is a view may not be changed in place


def float_sums(x: Tensor, weight: Tensor) -> Tensor:
    """The product of codes x (M, K) and weight (N, K) on a GPU, without integers: float32 (M, N).

    bfloat16 holds every code, and products of two are summed in float32: exact below 2^24.
    """
    return torch.mm(x.to(torch.bfloat16), weight.to(torch.bfloat16).t(), out_dtype=torch.float32)


def integer_conv2d(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    x_codes: Tensor,
    x_scale: Tensor,
    w_codes: Tensor,
    w_scale: Tensor,
    dtype: torch.dtype,
    geometry: Geometry,
) -> Tensor:
    """The 2-D convolution of int8 codes x_codes (B, C, H, W) and w_codes (N, C/groups, kh, kw): (B, N, H', W').

    Args:
        x: (B, C, H, W), what x_codes were made from; receives the gradient.
        weight: (N, C/groups, kh, kw), what w_codes were made from; receives the gradient. None if frozen.
        bias: (N,) or None.
        x_codes: (B, C, H, W).
        x_scale: (B, 1, 1, 1).
        w_codes: (N, C/groups, kh, kw).
        w_scale: (N, 1, 1, 1) or (1, 1, 1, 1).
        dtype: of the result.
        geometry: stride, padding, dilation and groups.
    """
    if not torch.is_grad_enabled():
        return _conv2d(bias, x_codes, x_scale, w_codes, w_scale, dtype, geometry)
    product: Tensor = _IntegerConv2d.apply(x, weight, bias, x_codes, x_scale, w_codes, w_scale, dtype, geometry)
    return product


def _linear(
    bias: Tensor | None,
    rows: Tensor,
    row_scale: Tensor,
    w_codes: Tensor,
    w_scale: Tensor,
    dtype: torch.dtype,
    packed: Tensor | None,
    in_float: bool,
) -> Tensor:
    """Of rows (M, K) of codes and their scales (M, 1): (M, N)."""
    bias = None if bias is None else bias.to(row_scale.dtype)
    product = float_sums if in_float else ops.int_matmul
    if w_scale.dim() > w_codes.dim():
        sums = _grouped(rows, w_codes, w_scale, product).mul_(row_scale)
        return (sums if bias is None else sums.add_(bias)).to(dtype)
    if in_float or row_scale.dtype == torch.float64:
        sums = product(rows, w_codes).to(row_scale.dtype).mul_(row_scale)
        return _rescale(sums, w_scale.view(-1), bias).to(dtype)
    channel_scale = w_scale.view(-1).expand(w_codes.shape[0])
    if packed is not None:
        return ops.linear_w4a8(rows, row_scale, packed, channel_scale, bias).to(dtype)
    return ops.linear_w8a8(rows, row_scale, w_codes, channel_scale, bias, dtype)


def _grouped(rows: Tensor, w_codes: Tensor, w_scale: Tensor, product: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Sum over groups of (product of codes within the group) x its scales: rows (M, K) -> (M, N)."""
    groups = w_scale.shape[1]
    parts = zip(rows.chunk(groups, 1), w_codes.chunk(groups, 1), w_scale.squeeze(2).unbind(1), strict=True)
    total = rows.new_zeros((rows.shape[0], w_codes.shape[0]), dtype=w_scale.dtype)
    for part, codes, scale in parts:
        total.addcmul_(product(part, codes).to(total.dtype), scale)
    return total


def _conv2d(
    bias: Tensor | None,
    x_codes: Tensor,
    x_scale: Tensor,
    w_codes: Tensor,
    w_scale: Tensor,
    dtype: torch.dtype,
    move: Geometry,
) -> Tensor:
    how = move.stride, move.padding, move.dilation, move.groups
    channel_scale = w_scale.view(-1).expand(w_codes.shape[0])
    bias = None if bias is None else bias.to(x_scale.dtype)
    if x_scale.dtype == torch.float64:
        sums = ops.int_conv2d(x_codes, w_codes, *how).to(x_scale.dtype).mul_(x_scale)
        return _rescale(sums, channel_scale.view(-1, 1, 1), None if bias is None else bias.view(-1, 1, 1)).to(dtype)
    return ops.conv2d_w8a8(x_codes, x_scale.view(-1), w_codes, channel_scale, bias, *how, dtype)


def _rescale(sums: Tensor, scale: Tensor, bias: Tensor | None) -> Tensor:
    """sums scale + bias, in place."""
    return sums.mul_(scale) if bias is None else torch.addcmul(bias.to(sums.dtype), sums, scale, out=sums)


class _IntegerLinear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        rows: Tensor,
        row_scale: Tensor,
        w_codes: Tensor,
        w_scale: Tensor,
        dtype: torch.dtype,
        packed: Tensor | None,
        in_float: bool,
    ) -> Tensor:
        ctx.save_for_backward(rows, row_scale, w_codes, w_scale)
        ctx.types, ctx.shape = _types(x, weight, bias), x.shape
        return _linear(bias, rows, row_scale, w_codes, w_scale, dtype, packed, in_float)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        rows, row_scale, w_codes, w_scale = ctx.saved_tensors
        x_type, weight_type, bias_type = ctx.types
        dx = dw = db = None
        if ctx.needs_input_grad[0]:
            dx = _product(gradient, dequantize(w_codes, w_scale, gradient.dtype), x_type).view(ctx.shape)
        if ctx.needs_input_grad[1]:
            # On a GPU in one pass: of all layers of conformer_l it moves 5 bytes for each input, some 6 ms a step. A
            # kernel that converted codes in registers would have to be within a third of cuBLAS's speed to gain.
            dw = _product(gradient.t(), dequantize(rows, row_scale, gradient.dtype), weight_type)
        if ctx.needs_input_grad[2]:
            db = gradient.sum(0).to(bias_type)
        return dx, dw, db, None, None, None, None, None, None, None


def _product(one: Tensor, other: Tensor, dtype: torch.dtype) -> Tensor:
    """one (I, J) other (J, L), of type `dtype`: (I, L)."""
    if one.is_cuda and dtype == torch.float32 != one.dtype:  # its sums are in float32, and need not be rounded twice
        return torch.mm(one, other, out_dtype=dtype)
    return (one @ other).to(dtype)


class _IntegerConv2d(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        x_codes: Tensor,
        x_scale: Tensor,
        w_codes: Tensor,
        w_scale: Tensor,
        dtype: torch.dtype,
        geometry: Geometry,
    ) -> Tensor:
        ctx.save_for_backward(x_codes, x_scale, w_codes, w_scale)
        ctx.types, ctx.geometry = _types(x, weight, bias), geometry
        return _conv2d(bias, x_codes, x_scale, w_codes, w_scale, dtype, geometry)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x_codes, x_scale, w_codes, w_scale = ctx.saved_tensors
        x_type, weight_type, bias_type = ctx.types
        needed = ctx.needs_input_grad[:3]
        dx, dw, db = _conv2d_gradients(gradient, x_codes, x_scale, w_codes, w_scale, ctx.geometry, needed)
        dx = None if dx is None else dx.to(x_type)
        dw = None if dw is None else dw.to(weight_type)
        db = None if db is None else db.to(bias_type)
        return dx, dw, db, None, None, None, None, None, None


def _conv2d_gradients(
    gradient: Tensor,
    x_codes: Tensor,
    x_scale: Tensor,
    w_codes: Tensor,
    w_scale: Tensor,
    move: Geometry,
    needed: tuple[bool, bool, bool],
) -> tuple[Tensor | None, ...]:
    """Gradients of input, filters and bias; None for one that is not needed."""

    def gradients(
        gradient: Tensor, x: Tensor, filters: Tensor, needed: tuple[bool, bool, bool]
    ) -> tuple[Tensor | None, ...]:
        found: tuple[Tensor | None, ...] = torch.ops.aten.convolution_backward(
            gradient,
            x,
            filters,
            [filters.shape[0]],
            move.stride,
            move.padding,
            move.dilation,
            False,
            [0, 0],
            move.groups,
            needed,
        )
        return found

    filters = dequantize(w_codes, w_scale, gradient.dtype)
    if w_codes.shape[1] == move.groups == 1 and not needed[0] and gradient.device.type == "cpu":
        found = _filter_gradients(gradient, dequantize(x_codes, x_scale, gradient.dtype), filters, move)
        return None, *(slope if asked else None for slope, asked in zip(found, needed[1:], strict=True))
    if w_codes.shape[1] == 1 or gradient.device.type != "cpu":
        return gradients(gradient, dequantize(x_codes, x_scale, gradient.dtype), filters, needed)
    # Where filters have many channels, oneDNN finds their gradient three times as fast in the contiguous layout, that
    # of the input faster in channels-last layout.
    unread = torch.empty_like(x_codes, dtype=gradient.dtype, memory_format=torch.channels_last)
    dx, _, _ = gradients(gradient, unread, filters, (needed[0], False, False))
    values = dequantize(x_codes.contiguous(), x_scale, gradient.dtype)
    _, dw, db = gradients(gradient.contiguous(), values, filters.contiguous(), (False, *needed[1:]))
    return dx, dw, db


def _filter_gradients(gradient: Tensor, x: Tensor, filters: Tensor, move: Geometry) -> tuple[Tensor, Tensor]:
    """Gradients of filters of one channel, and of the bias, as a product: on CPU five times as fast as oneDNN's."""
    outputs, kernel = filters.shape[0], filters.shape[2:]
    windows = F.unfold(x, kernel, move.dilation, move.padding, move.stride)  # (B, kh kw, H' W')
    rows = gradient.permute(0, 2, 3, 1).reshape(-1, outputs)
    dw = windows.transpose(0, 1).reshape(len(windows[0]), -1) @ rows
    return dw.t().reshape(filters.shape), rows.sum(0)


def _types(*tensors: Tensor | None) -> list[torch.dtype | None]:
    return [None if tensor is None else tensor.dtype for tensor in tensors]
