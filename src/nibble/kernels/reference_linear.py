"""Layers on codes in plain torch: what runs where nothing faster is registered, and what that must equal.

Float steps follow each other in one order, each rounded to float32, without fused multiply-add:

    y = ((float(sums) s_x) s_w) + b        sums: int32, exact

Only the result is rounded to a shorter type, if one is asked for.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from nibble.kernels.nibbles import unpack_rows
from nibble.kernels.reference import check_conv2d, check_devices, check_terms, int_conv2d, int_matmul
from nibble.kernels.rounding import HIGHEST_INT8, divide, to_codes, without_zeros

FLOATS = (torch.float16, torch.bfloat16, torch.float32)


def quantize_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """x (..., K) -> codes int8 (..., K), scale float32 (..., 1)."""
    check_quantize_rows(x)
    values = x.float()
    if not x.numel():
        return values.to(torch.int8).contiguous(), values.new_ones((*x.shape[:-1], 1))
    largest = torch.maximum(values.amax(-1, keepdim=True), values.amin(-1, keepdim=True).neg_())
    scale = without_zeros(divide(largest, HIGHEST_INT8))
    codes = to_codes(values, scale, -HIGHEST_INT8, HIGHEST_INT8)
    return codes.to(torch.int8, memory_format=torch.contiguous_format), scale


def linear_w8a8(
    codes: Tensor,
    scale: Tensor,
    weight: Tensor,
    weight_scale: Tensor,
    bias: Tensor | None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """codes int8 (M, K), scale (M, 1), weight int8 (N, K), weight_scale (N,), bias (N,) -> (M, N) of `dtype`."""
    check_linear_w8a8(codes, scale, weight, weight_scale, bias, dtype)
    out = int_matmul(codes, weight).to(torch.float32).mul_(scale).mul_(weight_scale)
    return (out if bias is None else out.add_(bias)).to(dtype)


def linear_w4a8(codes: Tensor, scale: Tensor, packed: Tensor, weight_scale: Tensor, bias: Tensor | None) -> Tensor:
    """As `linear_w8a8`, with the weight's codes as packed uint8 (N, ceil(K / 2))."""
    check_linear_w4a8(codes, scale, packed, weight_scale, bias)
    return linear_w8a8(codes, scale, unpack_rows(packed, codes.shape[1]), weight_scale, bias)


def linear_w4a16(x: Tensor, packed: Tensor, weight_scale: Tensor, bias: Tensor | None) -> Tensor:
    """x (M, K), packed uint8 (N, ceil(K / 2)), weight_scale (N,), bias (N,) -> (M, N) of x's type."""
    check_linear_w4a16(x, packed, weight_scale, bias)
    with torch.autocast(x.device.type, enabled=False):
        return F.linear(x.float(), values(packed, weight_scale, x.shape[1]), bias).to(x.dtype)


def conv2d_w8a8(
    codes: Tensor,
    scale: Tensor,
    weight: Tensor,
    weight_scale: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """codes int8 (B, C, H, W), scale (B,), weight int8 (N, C/groups, kh, kw) -> (B, N, H', W') of `dtype`."""
    check_conv2d_w8a8(codes, scale, weight, weight_scale, bias, stride, padding, dilation, groups, dtype)
    sums = int_conv2d(codes, weight, stride, padding, dilation, groups)
    out = sums.to(torch.float32).mul_(scale.view(-1, 1, 1, 1)).mul_(weight_scale.view(-1, 1, 1))
    return (out if bias is None else out.add_(bias.view(-1, 1, 1))).to(dtype)


def values(packed: Tensor, weight_scale: Tensor, terms: int) -> Tensor:
    """The weight float32 (N, K) that packed codes and their scales stand for, with K = `terms`."""
    return unpack_rows(packed, terms).to(torch.float32).mul_(weight_scale.unsqueeze(1))


def check_quantize_rows(x: Tensor, name: str = "quantize_rows") -> None:
    """Raise RuntimeError unless x (..., K) is a float of 16 or 32 bits."""
    _check_floating(name, x)
    torch._check(x.dim() > 0, lambda: f"{name}: a scalar has no rows; give (..., K)")


def check_linear_w8a8(
    codes: Tensor, scale: Tensor, weight: Tensor, weight_scale: Tensor, bias: Tensor | None, dtype: torch.dtype
) -> None:
    """Raise RuntimeError unless types and sizes fit."""
    name = "linear_w8a8"
    _check_result(name, dtype)
    check_devices(name, codes, scale, weight, weight_scale, bias)
    torch._check(codes.dtype == torch.int8, lambda: f"{name}: codes are {codes.dtype}, not torch.int8")
    torch._check(weight.dtype == torch.int8, lambda: f"{name}: weight is {weight.dtype}, not torch.int8")
    torch._check(
        codes.dim() == 2 and weight.dim() == 2 and codes.shape[1] == weight.shape[1],
        lambda: f"{name}: sizes {tuple(codes.shape)} and {tuple(weight.shape)}; give (M, K) and (N, K)",
    )
    check_terms(name, codes.shape[1])
    _check_floats(name, codes.shape[0], weight.shape[0], scale, weight_scale, bias)


def check_linear_w4a8(codes: Tensor, scale: Tensor, packed: Tensor, weight_scale: Tensor, bias: Tensor | None) -> None:
    """Raise RuntimeError unless types and sizes fit."""
    name = "linear_w4a8"
    check_devices(name, codes, scale, packed, weight_scale, bias)
    torch._check(codes.dtype == torch.int8, lambda: f"{name}: codes are {codes.dtype}, not torch.int8")
    _check_packed(name, codes, packed)
    check_terms(name, codes.shape[1])
    _check_floats(name, codes.shape[0], packed.shape[0], scale, weight_scale, bias)


def check_conv2d_w8a8(
    codes: Tensor,
    scale: Tensor,
    weight: Tensor,
    weight_scale: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    dtype: torch.dtype,
    name: str = "conv2d_w8a8",
) -> None:
    """Raise RuntimeError unless types, sizes and steps fit."""
    _check_result(name, dtype)
    check_devices(name, codes, scale, weight, weight_scale, bias)
    check_conv2d(codes, weight, stride, padding, dilation, groups, name)
    check_float(f"{name}: scale", scale, (codes.shape[0],))
    check_float(f"{name}: weight_scale", weight_scale, (weight.shape[0],))
    check_float(f"{name}: bias", bias, (weight.shape[0],))


def check_linear_w4a16(x: Tensor, packed: Tensor, weight_scale: Tensor, bias: Tensor | None) -> None:
    """Raise RuntimeError unless types and sizes fit."""
    name = "linear_w4a16"
    check_devices(name, x, packed, weight_scale, bias)
    _check_floating(name, x)
    _check_packed(name, x, packed)
    _check_floats(name, x.shape[0], packed.shape[0], None, weight_scale, bias)


def _check_floating(name: str, x: Tensor) -> None:
    torch._check(x.dtype in FLOATS, lambda: f"{name}: type {x.dtype}; give float16, bfloat16 or float32")


def _check_result(name: str, dtype: torch.dtype) -> None:
    torch._check(dtype in FLOATS, lambda: f"{name}: ask for a result in float16, bfloat16 or float32")


def _check_packed(name: str, x: Tensor, packed: Tensor) -> None:
    torch._check(packed.dtype == torch.uint8, lambda: f"{name}: packed is {packed.dtype}, not torch.uint8")
    torch._check(
        x.dim() == 2 and packed.dim() == 2 and packed.shape[1] == (x.shape[1] + 1) // 2,
        lambda: f"{name}: sizes {tuple(x.shape)} and {tuple(packed.shape)}; give (M, K) and (N, ceil(K / 2))",
    )


def _check_floats(
    name: str, rows: int, outputs: int, scale: Tensor | None, weight_scale: Tensor, bias: Tensor | None
) -> None:
    check_float(f"{name}: scale", scale, (rows, 1))
    check_float(f"{name}: weight_scale", weight_scale, (outputs,))
    check_float(f"{name}: bias", bias, (outputs,))


def check_float(what: str, tensor: Tensor | None, shape: tuple[int, ...]) -> None:
    """Raise RuntimeError unless a tensor that is given is float32 of this shape."""
    if tensor is not None:
        torch._check(
            tensor.dtype == torch.float32 and tuple(tensor.shape) == shape,
            lambda: f"{what} is {tensor.dtype} {tuple(tensor.shape)}; give torch.float32 {shape}",
        )
