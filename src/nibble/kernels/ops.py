"""The integer operators: schema, shape function and gradient of each, in torch's namespace "nibble".

    int_matmul(x int8 (M, K), weight int8 (N, K)) -> int32 (M, N)
    int_conv2d(x int8 (B, C, H, W), weight int8 (N, C/groups, kh, kw), ...) -> int32 (B, N, H', W')
    quantize_rows(x (..., K)) -> codes int8 (..., K), scale float32 (..., 1)
    silu_quantize_rows(x (..., K)), norm_quantize_rows(x (..., K), weight (K,), bias (K,), eps) -> as quantize_rows
    quantize_weights(weights (N, ...), terms, bits, one of each a weight) -> codes int8 (N, ...) of each, scales float32
    linear_w8a8(codes, scale, weight int8 (N, K), weight_scale (N,), bias (N,), dtype) -> (M, N)
    linear_w4a8(codes, scale, packed uint8 (N, ceil(K/2)), weight_scale (N,), bias (N,)) -> float32 (M, N)
    linear_w4a16(x (M, K), packed uint8 (N, ceil(K/2)), weight_scale (N,), bias (N,)) -> (M, N) of x's type
    conv2d_w8a8(codes (B, C, H, W), scale (B,), weight int8 (N, C/groups, kh, kw), ..., dtype) -> (B, N, H', W')
    conv2d_relu_quantize(codes, ..., stride, heights (B,)) -> codes int8 (B, N, H', W'), scale float32 (B,)
    relative_attention(query, key, value (B, S, D), positions (S + T, D), ...) -> float32 (B, T, D)

`nibble.kernels.reference` and the modules beside it whose names start so implement them for every device. A faster
implementation registers for its device type; its codes, scales and int32 sums must be the same integers. Tensors may be
of any layout.

A product of codes has a gradient for its bias alone: codes have none and scales are held constant, as everywhere in
`nibble.quant`, whose `products` gives the straight-through one. `linear_w4a16` has one for x too.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from nibble.kernels import implementations, reference, reference_fused, reference_linear, reference_weights

SCHEMAS = {
    "int_matmul": "(Tensor x, Tensor weight) -> Tensor",
    "int_conv2d": "(Tensor x, Tensor weight, int[2] stride, int[2] padding, int[2] dilation, int groups) -> Tensor",
    "quantize_rows": "(Tensor x) -> (Tensor codes, Tensor scale)",
    "silu_quantize_rows": "(Tensor x) -> (Tensor codes, Tensor scale)",
    "norm_quantize_rows": "(Tensor x, Tensor weight, Tensor bias, float eps) -> (Tensor codes, Tensor scale)",
    "quantize_weights": "(Tensor[] weights, int[] terms, int[] bits) -> (Tensor[] codes, Tensor scale)",
    "linear_w8a8": "(Tensor codes, Tensor scale, Tensor weight, Tensor weight_scale, Tensor? bias, "
    "ScalarType dtype=float) -> Tensor",
    "linear_w4a8": "(Tensor codes, Tensor scale, Tensor packed, Tensor weight_scale, Tensor? bias) -> Tensor",
    "linear_w4a16": "(Tensor x, Tensor packed, Tensor weight_scale, Tensor? bias) -> Tensor",
    "conv2d_w8a8": "(Tensor codes, Tensor scale, Tensor weight, Tensor weight_scale, Tensor? bias, "
    "int[2] stride, int[2] padding, int[2] dilation, int groups, ScalarType dtype=float) -> Tensor",
    "conv2d_relu_quantize": "(Tensor codes, Tensor scale, Tensor weight, Tensor weight_scale, Tensor? bias, "
    "int[2] stride, Tensor heights) -> (Tensor codes, Tensor scale)",
    "relative_attention": "(Tensor query, Tensor key, Tensor value, Tensor positions, Tensor content_bias, "
    "Tensor position_bias, Tensor visible, int heads) -> Tensor",
}
for _name, _schema in SCHEMAS.items():
    torch.library.define(f"nibble::{_name}", _schema)
    # "default" serves every device type that nothing else is registered for.
    _of = next(
        room for room in (reference, reference_linear, reference_weights, reference_fused) if hasattr(room, _name)
    )
    torch.library.impl(f"nibble::{_name}", "default", getattr(_of, _name))


@torch.library.register_fake("nibble::int_matmul")
def _int_matmul_shape(x: Tensor, weight: Tensor) -> Tensor:
    reference.check_matmul(x, weight)
    return x.new_empty((x.shape[0], weight.shape[0]), dtype=torch.int32)


@torch.library.register_fake("nibble::int_conv2d")
def _int_conv2d_shape(
    x: Tensor, weight: Tensor, stride: list[int], padding: list[int], dilation: list[int], groups: int
) -> Tensor:
    reference.check_conv2d(x, weight, stride, padding, dilation, groups)
    height, width = reference.conv_size(x, weight, stride, padding, dilation)
    return x.new_empty((x.shape[0], height, width, weight.shape[0]), dtype=torch.int32).permute(0, 3, 1, 2)


@torch.library.register_fake("nibble::quantize_rows")
def _quantize_rows_shape(x: Tensor) -> tuple[Tensor, Tensor]:
    reference_linear.check_quantize_rows(x)
    scale = x.new_empty((*x.shape[:-1], 1), dtype=torch.float32)
    return x.new_empty(x.shape, dtype=torch.int8), scale


@torch.library.register_fake("nibble::silu_quantize_rows")
def _silu_quantize_rows_shape(x: Tensor) -> tuple[Tensor, Tensor]:
    reference_linear.check_quantize_rows(x, "silu_quantize_rows")
    return _quantize_rows_shape(x)


@torch.library.register_fake("nibble::norm_quantize_rows")
def _norm_quantize_rows_shape(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    del eps
    reference_fused.check_norm_quantize_rows(x, weight, bias)
    return _quantize_rows_shape(x)


@torch.library.register_fake("nibble::quantize_weights")
def _quantize_weights_shape(weights: list[Tensor], terms: list[int], bits: list[int]) -> tuple[list[Tensor], Tensor]:
    reference_weights.check_quantize_weights(weights, terms, bits)
    slices = sum(weight.numel() // length for weight, length in zip(weights, terms, strict=True))
    codes = [torch.empty_like(weight, dtype=torch.int8) for weight in weights]
    return codes, weights[0].new_empty(slices, dtype=torch.float32)


@torch.library.register_fake("nibble::linear_w8a8")
def _linear_w8a8_shape(
    codes: Tensor,
    scale: Tensor,
    weight: Tensor,
    weight_scale: Tensor,
    bias: Tensor | None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    reference_linear.check_linear_w8a8(codes, scale, weight, weight_scale, bias, dtype)
    return scale.new_empty((codes.shape[0], weight.shape[0]), dtype=dtype)


@torch.library.register_fake("nibble::linear_w4a8")
def _linear_w4a8_shape(
    codes: Tensor, scale: Tensor, packed: Tensor, weight_scale: Tensor, bias: Tensor | None
) -> Tensor:
    reference_linear.check_linear_w4a8(codes, scale, packed, weight_scale, bias)
    return scale.new_empty((codes.shape[0], packed.shape[0]))


@torch.library.register_fake("nibble::linear_w4a16")
def _linear_w4a16_shape(x: Tensor, packed: Tensor, weight_scale: Tensor, bias: Tensor | None) -> Tensor:
    reference_linear.check_linear_w4a16(x, packed, weight_scale, bias)
    return x.new_empty((x.shape[0], packed.shape[0]))


@torch.library.register_fake("nibble::conv2d_w8a8")
def _conv2d_w8a8_shape(
    codes: Tensor,
    scale: Tensor,
    weight: Tensor,
    weight_scale: Tensor,
    bias: Tensor | None,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    how = stride, padding, dilation, groups
    reference_linear.check_conv2d_w8a8(codes, scale, weight, weight_scale, bias, *how, dtype)
    return _int_conv2d_shape(codes, weight, *how).to(dtype)


@torch.library.register_fake("nibble::conv2d_relu_quantize")
def _conv2d_relu_quantize_shape(
    codes: Tensor,
    scale: Tensor,
    weight: Tensor,
    weight_scale: Tensor,
    bias: Tensor | None,
    stride: list[int],
    heights: Tensor,
) -> tuple[Tensor, Tensor]:
    reference_fused.check_conv2d_relu_quantize(codes, scale, weight, weight_scale, bias, stride, heights)
    return _int_conv2d_shape(codes, weight, stride, [0, 0], [1, 1], 1).to(torch.int8), torch.empty_like(scale)


@torch.library.register_fake("nibble::relative_attention")
def _relative_attention_shape(query: Tensor, *others: Any) -> Tensor:
    reference_fused.check_relative_attention(query, *others)
    return torch.empty_like(query, memory_format=torch.contiguous_format)


def _bias_gradient(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    channels = 1  # of (M, N) and of (B, N, H', W')
    others = [dim for dim in range(gradient.dim()) if dim != channels]
    unused = [None] * (len(ctx.needs_input_grad) - 5)
    by_bias = gradient.sum(others, dtype=torch.float32) if ctx.needs_input_grad[4] else None
    return None, None, None, None, by_bias, *unused


def _keep_nothing(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    del ctx, inputs, output


for _name in ("linear_w8a8", "linear_w4a8", "conv2d_w8a8"):
    torch.library.register_autograd(f"nibble::{_name}", _bias_gradient, setup_context=_keep_nothing)


def _keep_weight(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    del output
    x, packed, weight_scale, _ = inputs
    ctx.save_for_backward(packed, weight_scale)
    ctx.terms = x.shape[1]


def _linear_w4a16_gradient(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    dx = db = None
    if ctx.needs_input_grad[0]:
        packed, weight_scale = ctx.saved_tensors
        dx = (gradient.float() @ reference_linear.values(packed, weight_scale, ctx.terms)).to(gradient.dtype)
    if ctx.needs_input_grad[3]:
        db = gradient.float().sum(0)
    return dx, None, None, db


torch.library.register_autograd("nibble::linear_w4a16", _linear_w4a16_gradient, setup_context=_keep_weight)


# Bound once: to look an operator up takes a seventh of a call.
_INT_MATMUL = torch.ops.nibble.int_matmul.default
_INT_CONV2D = torch.ops.nibble.int_conv2d.default
_QUANTIZE_ROWS = torch.ops.nibble.quantize_rows.default
_SILU_QUANTIZE_ROWS = torch.ops.nibble.silu_quantize_rows.default
_NORM_QUANTIZE_ROWS = torch.ops.nibble.norm_quantize_rows.default
_QUANTIZE_WEIGHTS = torch.ops.nibble.quantize_weights.default
_LINEAR_W8A8 = torch.ops.nibble.linear_w8a8.default
_LINEAR_W4A8 = torch.ops.nibble.linear_w4a8.default
_LINEAR_W4A16 = torch.ops.nibble.linear_w4a16.default
_CONV2D_W8A8 = torch.ops.nibble.conv2d_w8a8.default
_CONV2D_RELU_QUANTIZE = torch.ops.nibble.conv2d_relu_quantize.default
_RELATIVE_ATTENTION = torch.ops.nibble.relative_attention.default


def int_matmul(x: Tensor, weight: Tensor) -> Tensor:
    """x int8 (M, K), weight int8 (N, K) -> x weight^T, int32 (M, N).

    Raises:
        RuntimeError: a tensor is not int8, or the sizes do not fit.
    """
    return _INT_MATMUL(x, weight)


def int_conv2d(
    x: Tensor,
    weight: Tensor,
    stride: Sequence[int] = (1, 1),
    padding: Sequence[int] = (0, 0),
    dilation: Sequence[int] = (1, 1),
    groups: int = 1,
) -> Tensor:
    """x int8 (B, C, H, W), weight int8 (N, C / groups, kh, kw) -> int32 (B, N, H', W') in channels-last layout.

    Raises:
        RuntimeError: a tensor is not int8, or the sizes do not fit.
    """
    return _INT_CONV2D(x, weight, stride, padding, dilation, groups)


def quantize_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """Codes and scales, one a row: x (..., K), a float of 16 or 32 bits -> int8 (..., K), float32 (..., 1).

    The narrow range: s = max|x| / 127, 1 for a row of zeros; q = x / s in float32, rounded half to even. The codes are
    contiguous. A row with NaN or infinity gets a scale of NaN or infinity, and codes that mean nothing.

    Raises:
        RuntimeError: x is of another type.
    """
    return _QUANTIZE_ROWS(x)


def silu_quantize_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """`quantize_rows` of SiLU(x) in float32, in one pass: x (..., K) -> int8 (..., K), float32 (..., 1).

    Raises:
        RuntimeError: x is of another type than `quantize_rows` takes.
    """
    return _SILU_QUANTIZE_ROWS(x)


def norm_quantize_rows(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """`quantize_rows` of a layer norm in float32, in one pass: x (..., K) -> int8 (..., K), float32 (..., 1).

    Args:
        x: as `quantize_rows` takes it.
        weight: float32 (K,).
        bias: float32 (K,).
        eps: added to the variance.

    Raises:
        RuntimeError: types or sizes do not fit.
    """
    return _NORM_QUANTIZE_ROWS(x, weight, bias, eps)


def quantize_weights(
    weights: Sequence[Tensor], terms: Sequence[int], bits: Sequence[int]
) -> tuple[list[Tensor], Tensor]:
    """Codes and scales of many weights, in the narrow range: codes int8 of each one's shape, scales float32 of all.

    The scale of a slice is max|w| / (2^(bits - 1) - 1), rounded to float16, 1 for a slice of zeros. A slice with NaN or
    infinity, or too large for float16, gets a scale of NaN or infinity, and codes that mean nothing.

    Args:
        weights: contiguous, (N, ...), of one type of 16 or 32 bits, on one device.
        terms: how many successive values of a weight share a scale; they are a slice.
        bits: of the codes, 2 to 8.

    Returns:
        the codes of each weight, and one after the other the scales of all slices of all weights.

    Raises:
        RuntimeError: types or sizes do not fit.
    """
    codes, scale = _QUANTIZE_WEIGHTS(weights, terms, bits)
    return codes, scale


def linear_w8a8(
    codes: Tensor,
    scale: Tensor,
    weight: Tensor,
    weight_scale: Tensor,
    bias: Tensor | None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """(codes weight^T) scale weight_scale + bias, from left to right in float32: (M, N) of type `dtype`.

    Args:
        codes: int8 (M, K).
        scale: float32 (M, 1).
        weight: int8 (N, K).
        weight_scale: float32 (N,).
        bias: float32 (N,) or None.
        dtype: of the result, which is rounded once, at the end.

    Raises:
        RuntimeError: types or sizes do not fit.
    """
    return _LINEAR_W8A8(codes, scale, weight, weight_scale, bias, dtype)


def linear_w4a8(codes: Tensor, scale: Tensor, packed: Tensor, weight_scale: Tensor, bias: Tensor | None) -> Tensor:
    """As `linear_w8a8` in float32, with packed uint8 (N, ceil(K / 2)) of `nibble.kernels.nibbles`: two codes a byte.

    Raises:
        RuntimeError: types or sizes do not fit.
    """
    return _LINEAR_W4A8(codes, scale, packed, weight_scale, bias)


def linear_w4a16(x: Tensor, packed: Tensor, weight_scale: Tensor, bias: Tensor | None) -> Tensor:
    """x w~^T + bias, accumulated in float32: (M, N) of x's type, where w~ = codes x weight_scale.

    Args:
        x: float16, bfloat16 or float32 (M, K).
        packed: uint8 (N, ceil(K / 2)), as `linear_w4a8` takes it.
        weight_scale: float32 (N,).
        bias: float32 (N,) or None.

    Raises:
        RuntimeError: types or sizes do not fit.
    """
    return _LINEAR_W4A16(x, packed, weight_scale, bias)


def conv2d_w8a8(
    codes: Tensor,
    scale: Tensor,
    weight: Tensor,
    weight_scale: Tensor,
    bias: Tensor | None,
    stride: Sequence[int] = (1, 1),
    padding: Sequence[int] = (0, 0),
    dilation: Sequence[int] = (1, 1),
    groups: int = 1,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """int_conv2d(codes, weight) scale weight_scale + bias, from left to right in float32: (B, N, H', W') of `dtype`.

    The result is in channels-last layout.

    Args:
        codes: int8 (B, C, H, W).
        scale: float32 (B,).
        weight: int8 (N, C / groups, kh, kw).
        weight_scale: float32 (N,).
        bias: float32 (N,) or None.
        stride: of height and width, as are padding and dilation.
        padding: zeros on both sides.
        dilation: from one tap to the next.
        groups: of channels.
        dtype: of the result, which is rounded once, at the end.

    Raises:
        RuntimeError: types or sizes do not fit.
    """
    return _CONV2D_W8A8(codes, scale, weight, weight_scale, bias, stride, padding, dilation, groups, dtype)


def conv2d_relu_quantize(
    codes: Tensor,
    scale: Tensor,
    weight: Tensor,
    weight_scale: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    heights: Tensor,
) -> tuple[Tensor, Tensor]:
    """Codes of ReLU(conv2d_w8a8(...)), one scale an utterance: int8 (B, N, H', W') in channels-last layout, (B,).

    Args:
        codes: as `conv2d_w8a8` takes them, up to bias.
        scale: likewise.
        weight: likewise.
        weight_scale: likewise.
        bias: likewise.
        stride: of height and width.
        heights: int64 (B,): how much of H' is no padding; beyond it codes are zero.

    Raises:
        RuntimeError: types or sizes do not fit.
    """
    return _CONV2D_RELU_QUANTIZE(codes, scale, weight, weight_scale, bias, stride, heights)


def relative_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    positions: Tensor,
    content_bias: Tensor,
    position_bias: Tensor,
    visible: Tensor,
    heads: int,
) -> Tensor:
    """Multi-head attention with relative positions (Dai et al., 2019, section 3.3): float32 (B, T, D).

    The score of query i and key j is ((q_i + u) k_j + (q_i + v) p_{i-j}) / sqrt(D / H). Without a gradient.

    Args:
        query: float32 (B, T, D), of the last T of S frames.
        key: float32 (B, S, D).
        value: float32 (B, S, D).
        positions: p of the distances S - 1, ..., -T: float32 (S + T, D).
        content_bias: u, float32 (D,).
        position_bias: v, float32 (D,).
        visible: which keys are attended to, bool (B, S); where none is, the result is NaN.
        heads: H, a divisor of D.

    Raises:
        RuntimeError: types or sizes do not fit.
    """
    return _RELATIVE_ATTENTION(query, key, value, positions, content_bias, position_bias, visible, heads)


implementations.load()
