"""The linear product of integer codes, with the gradients of the product of the values they stand for.

    y  = (q_x . q_w) s_x s_w + b       forward, accumulated in int32
    dx = dy . w~    dw = dy^T . x~     backward, straight-through, in the type of dy

The backward pass keeps the input's int8 codes: a quarter of the memory that a float layer keeps.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from nibble.kernels import ops
from nibble.quant.tensor import Factor, QuantizedTensor


def integer_linear(
    x: Factor, weight: Factor, bias: Tensor | None, dtype: torch.dtype, in_float: bool = False
) -> Tensor:
    """The linear product of codes: (..., N) of type `dtype`.

    Args:
        x: codes (..., K), scales (..., 1).
        weight: codes (N, K), scales (N, 1) or (1, 1), or (N, K / group, 1).
        bias: (N,) or None.
        dtype: of the result.
        in_float: take the sums by `float_sums`, on a GPU.
    """
    codes, scale, _ = x.quantized
    shape, outputs = codes.shape[:-1], weight.quantized.codes.shape[0]
    rows = QuantizedTensor(codes.reshape(shape.numel(), codes.shape[-1]), scale.expand(*shape, 1).reshape(-1, 1))
    of_codes = _Product(rows, weight.quantized, weight.packed, dtype, in_float)
    product: Tensor
    if torch.is_grad_enabled():
        product = _IntegerLinear.apply(x.source, weight.source, bias, of_codes)
    else:
        product = of_codes.forward(bias)
    # Here and not inside: the result of an autograd function must not be a view if it is to be changed in place.
    return product.view(*shape, outputs)


def float_sums(x: Tensor, weight: Tensor) -> Tensor:
    """The product of codes x (M, K) and weight (N, K) on a GPU, without integers: float32 (M, N).

    bfloat16 holds every code, and products of two are summed in float32: exact below 2^24.
    """
    return torch.mm(x.to(torch.bfloat16), weight.to(torch.bfloat16).t(), out_dtype=torch.float32)


class _Product(NamedTuple):
    """One linear product of codes."""

    rows: QuantizedTensor  # codes (M, K), scales (M, 1)
    weight: QuantizedTensor
    packed: Tensor | None  # the weight's codes as `ops.linear_w4a8` takes them, if they have 4 bits and are frozen
    dtype: torch.dtype
    in_float: bool

    def forward(self, bias: Tensor | None) -> Tensor:
        """The result (M, N)."""
        rows, row_scale, _ = self.rows
        bias = None if bias is None else bias.to(row_scale.dtype)
        product = float_sums if self.in_float else ops.int_matmul
        if self.weight.grouped:
            sums = _grouped(rows, self.weight, product).mul_(row_scale)
            return (sums if bias is None else sums.add_(bias)).to(self.dtype)
        if self.in_float or row_scale.dtype == torch.float64:
            sums = product(rows, self.weight.codes).to(row_scale.dtype).mul_(row_scale)
            return rescale(sums, self.weight.scale.view(-1), bias).to(self.dtype)
        channel_scale = self.weight.channel_scale()
        if self.packed is not None:
            return ops.linear_w4a8(rows, row_scale, self.packed, channel_scale, bias).to(self.dtype)
        return ops.linear_w8a8(rows, row_scale, self.weight.codes, channel_scale, bias, self.dtype)


def _grouped(rows: Tensor, weight: QuantizedTensor, product: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Sum over groups of (product of codes within the group) x its scales: rows (M, K) -> (M, N)."""
    groups = weight.scale.shape[1]
    parts = zip(rows.chunk(groups, 1), weight.codes.chunk(groups, 1), weight.scale.squeeze(2).unbind(1), strict=True)
    total = rows.new_zeros((rows.shape[0], weight.codes.shape[0]), dtype=weight.scale.dtype)
    for part, codes, scale in parts:
        total.addcmul_(product(part, codes).to(total.dtype), scale)
    return total


def rescale(sums: Tensor, scale: Tensor, bias: Tensor | None) -> Tensor:
    """sums scale + bias, in place."""
    return sums.mul_(scale) if bias is None else torch.addcmul(bias.to(sums.dtype), sums, scale, out=sums)


class _IntegerLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor | None, weight: Tensor | None, bias: Tensor | None, product: _Product) -> Tensor:
        rows, weights = product.rows, product.weight
        ctx.save_for_backward(rows.codes, rows.scale, weights.codes, weights.scale)
        ctx.types, ctx.shape = types_of(x, weight, bias), None if x is None else x.shape
        return product.forward(bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        rows, row_scale, w_codes, w_scale = ctx.saved_tensors
        x_type, weight_type, bias_type = ctx.types
        dx = dw = db = None
        if ctx.needs_input_grad[0]:
            values = QuantizedTensor(w_codes, w_scale).dequantize(gradient.dtype)
            dx = _matrix_product(gradient, values, x_type).view(ctx.shape)
        if ctx.needs_input_grad[1]:
            # On a GPU in one pass: over all layers of conformer_l it moves 5 bytes for each input, some 6 ms a step. A
            # kernel that converted codes in registers would have to come within a third of cuBLAS's speed to gain.
            values = QuantizedTensor(rows, row_scale).dequantize(gradient.dtype)
            dw = _matrix_product(gradient.t(), values, weight_type)
        if ctx.needs_input_grad[2]:
            db = gradient.sum(0).to(bias_type)
        return dx, dw, db, None


def _matrix_product(one: Tensor, other: Tensor, dtype: torch.dtype) -> Tensor:
    """one (I, J) other (J, L), of type `dtype`: (I, L)."""
    if one.is_cuda and dtype == torch.float32 != one.dtype:  # summed in float32, so there is no need to round twice
        return torch.mm(one, other, out_dtype=dtype)
    return (one @ other).to(dtype)


def types_of(*tensors: Tensor | None) -> list[torch.dtype | None]:
    """The type of each tensor, None for None."""
    return [None if tensor is None else tensor.dtype for tensor in tensors]
