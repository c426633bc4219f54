"""The integer operators, as functions. `nibble.kernels.operators` declares each and explains its arguments.

    int_matmul(x int8 (M, K), weight int8 (N, K)) -> int32 (M, N)
    int_conv2d(x int8 (B, C, H, W), weight int8 (N, C/groups, kh, kw), ...) -> int32 (B, N, H', W')
    quantize_rows(x (..., K)) -> codes int8 (..., K), scale float32 (..., 1)
    silu_quantize_rows(x (..., K)), norm_quantize_rows(x (..., K), weight (K,), bias (K,), eps) -> as quantize_rows
    quantize_weights(weights (N, ...), terms, bits) -> codes int8 (N, ...) of each, scales float32 of all
    linear_w8a8(codes, scale, weight int8 (N, K), weight_scale (N,), bias (N,), dtype) -> (M, N)
    linear_w4a8(codes, scale, packed uint8 (N, ceil(K/2)), weight_scale (N,), bias (N,)) -> float32 (M, N)
    linear_w4a16(x (M, K), packed uint8 (N, ceil(K/2)), weight_scale (N,), bias (N,)) -> (M, N) of x's type
    conv2d_w8a8(codes (B, C, H, W), scale (B,), weight int8 (N, C/groups, kh, kw), ..., dtype) -> (B, N, H', W')
    conv2d_relu_quantize(codes, ..., stride, heights (B,)) -> codes int8 (B, N, H', W'), scale float32 (B,)
    relative_attention(query, key, value (B, S, D), positions (S + T, D), ...) -> float32 (B, T, D)

The codes, scales and int32 sums of every implementation are the same integers as those of the reference. Tensors may
have any layout.
"""

from typing import Any

from nibble.kernels.operator import Operator
from nibble.kernels.operators.attention import relative_attention
from nibble.kernels.operators.convolution import conv2d_relu_quantize, conv2d_w8a8, int_conv2d
from nibble.kernels.operators.linear import linear_w4a8, linear_w4a16, linear_w8a8
from nibble.kernels.operators.matmul import int_matmul
from nibble.kernels.operators.rows import norm_quantize_rows, quantize_rows, silu_quantize_rows
from nibble.kernels.operators.weights import quantize_weights

OPERATORS: dict[str, Operator[..., Any]] = {
    operator.name: operator
    for operator in (
        int_matmul,
        int_conv2d,
        quantize_rows,
        silu_quantize_rows,
        norm_quantize_rows,
        quantize_weights,
        linear_w8a8,
        linear_w4a8,
        linear_w4a16,
        conv2d_w8a8,
        conv2d_relu_quantize,
        relative_attention,
    )
}
