"""The 2-D convolution of integer codes, with the gradients of the convolution of the values they stand for.

See `nibble.quant.linear_product` for the equations.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from nibble.kernels import ops
from nibble.quant.linear_product import rescale, types_of
from nibble.quant.tensor import Factor, QuantizedTensor

_Needed = tuple[bool, bool, bool]  # whether the gradients of input, filters and bias are needed


class Geometry(NamedTuple):
    """How the filters of a 2-D convolution move over the input."""

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int


def integer_conv2d(x: Factor, weight: Factor, bias: Tensor | None, dtype: torch.dtype, geometry: Geometry) -> Tensor:
    """The 2-D convolution of codes: (B, N, H', W') of type `dtype`.

    Args:
        x: codes (B, C, H, W), scales (B, 1, 1, 1).
        weight: codes (N, C/groups, kh, kw), scales (N, 1, 1, 1) or (1, 1, 1, 1).
        bias: (N,) or None.
        dtype: of the result.
        geometry: how the filters move.
    """
    of_codes = _Product(x.quantized, weight.quantized, dtype, geometry)
    if not torch.is_grad_enabled():
        return of_codes.forward(bias)
    product: Tensor = _IntegerConv2d.apply(x.source, weight.source, bias, of_codes)
    return product


class _Product(NamedTuple):
    """One convolution of codes."""

    x: QuantizedTensor
    weight: QuantizedTensor
    dtype: torch.dtype
    geometry: Geometry

    def forward(self, bias: Tensor | None) -> Tensor:
        """The result (B, N, H', W')."""
        x, x_scale, _ = self.x
        weight, channel_scale = self.weight.codes, self.weight.channel_scale()
        stride, padding, dilation, groups = self.geometry
        bias = None if bias is None else bias.to(x_scale.dtype)
        if x_scale.dtype == torch.float64:
            sums = ops.int_conv2d(x, weight, stride, padding, dilation, groups).to(x_scale.dtype).mul_(x_scale)
            bias = None if bias is None else bias.view(-1, 1, 1)
            return rescale(sums, channel_scale.view(-1, 1, 1), bias).to(self.dtype)
        how = stride, padding, dilation, groups, self.dtype
        return ops.conv2d_w8a8(x, x_scale.view(-1), weight, channel_scale, bias, *how)


class _IntegerConv2d(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor | None, weight: Tensor | None, bias: Tensor | None, product: _Product) -> Tensor:
        ctx.save_for_backward(product.x.codes, product.x.scale, product.weight.codes, product.weight.scale)
        ctx.types, ctx.geometry = types_of(x, weight, bias), product.geometry
        return product.forward(bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x_codes, x_scale, w_codes, w_scale = ctx.saved_tensors
        x, weight = QuantizedTensor(x_codes, x_scale), QuantizedTensor(w_codes, w_scale)
        found = _gradients(gradient, x, weight, ctx.geometry, ctx.needs_input_grad[:3])
        slopes = (None if slope is None else slope.to(kind) for slope, kind in zip(found, ctx.types, strict=True))
        return *slopes, None


def _gradients(
    gradient: Tensor, x: QuantizedTensor, weight: QuantizedTensor, geometry: Geometry, needed: _Needed
) -> tuple[Tensor | None, ...]:
    """Gradients of input, filters and bias; None for one that is not needed."""
    filters, on_cpu = weight.dequantize(gradient.dtype), gradient.device.type == "cpu"
    one_channel = weight.codes.shape[1] == 1
    if one_channel and geometry.groups == 1 and not needed[0] and on_cpu:
        found = _filter_gradients(gradient, x.dequantize(gradient.dtype), filters, geometry)
        return None, *(slope if asked else None for slope, asked in zip(found, needed[1:], strict=True))
    if one_channel or not on_cpu:
        return _torch_gradients(gradient, x.dequantize(gradient.dtype), filters, geometry, needed)
    # Where filters have many channels, oneDNN finds their gradient three times as fast in the contiguous layout, and
    # the gradient of the input faster in channels-last layout.
    unread = torch.empty_like(x.codes, dtype=gradient.dtype, memory_format=torch.channels_last)
    dx, _, _ = _torch_gradients(gradient, unread, filters, geometry, (needed[0], False, False))
    values = QuantizedTensor(x.codes.contiguous(), x.scale).dequantize(gradient.dtype)
    _, dw, db = _torch_gradients(
        gradient.contiguous(), values, filters.contiguous(), geometry, (False, needed[1], needed[2])
    )
    return dx, dw, db


def _torch_gradients(
    gradient: Tensor, x: Tensor, filters: Tensor, geometry: Geometry, needed: _Needed
) -> tuple[Tensor | None, ...]:
    """The same from floats, by torch's own backward pass."""
    stride, padding, dilation, groups = geometry
    found: tuple[Tensor | None, ...] = torch.ops.aten.convolution_backward(
        gradient, x, filters, [filters.shape[0]], stride, padding, dilation, False, [0, 0], groups, needed
    )
    return found


def _filter_gradients(gradient: Tensor, x: Tensor, filters: Tensor, geometry: Geometry) -> tuple[Tensor, Tensor]:
    """Gradients of filters of one channel, and of the bias, as a product: on CPU five times as fast as oneDNN's."""
    outputs, kernel = filters.shape[0], filters.shape[2:]
    windows = F.unfold(x, kernel, geometry.dilation, geometry.padding, geometry.stride)  # (B, kh kw, H' W')
    rows = gradient.permute(0, 2, 3, 1).reshape(-1, outputs)
    dw = windows.transpose(0, 1).reshape(len(windows[0]), -1) @ rows
    return dw.t().reshape(filters.shape), rows.sum(0)
