"""What makes rows and their codes in one pass, in plain torch: what runs where nothing faster is registered.

A float step comes first, in float32. It may be summed in another order elsewhere, so a code of another implementation
may be off by one where the value lies between two.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from nibble.kernels import reference_linear
from nibble.kernels.reference import check_devices


def silu_quantize_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """quantize_rows of SiLU(x): x (..., K) -> codes int8 (..., K), scale float32 (..., 1)."""
    reference_linear.check_quantize_rows(x, "silu_quantize_rows")
    return reference_linear.quantize_rows(F.silu(x.float()))


def norm_quantize_rows(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """quantize_rows of the layer norm of x (..., K) with weight and bias float32 (K,)."""
    check_norm_quantize_rows(x, weight, bias)
    return reference_linear.quantize_rows(F.layer_norm(x.float(), weight.shape, weight, bias, eps))


def conv2d_relu_quantize(
    codes: Tensor,
    scale: Tensor,
    weight: Tensor,
    weight_scale: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    heights: Tensor,
) -> tuple[Tensor, Tensor]:
    """quantize_rows of ReLU(conv2d_w8a8(...)), a row an utterance, zero from `heights` (B,) on: int8, float32 (B,)."""
    check_conv2d_relu_quantize(codes, scale, weight, weight_scale, bias, stride, heights)
    how = stride, (0, 0), (1, 1), 1
    out = reference_linear.conv2d_w8a8(codes, scale, weight, weight_scale, bias, *how).relu_()
    out *= (torch.arange(out.shape[2], device=out.device) < heights.unsqueeze(1)).view(len(out), 1, out.shape[2], 1)
    found, scale = reference_linear.quantize_rows(out.permute(0, 2, 3, 1).flatten(1))
    return found.view(len(out), *out.shape[2:], out.shape[1]).permute(0, 3, 1, 2), scale.view(-1)


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
    """query (B, T, D), key and value (B, S, D), positions (S + T, D), visible (B, S) -> (B, T, D)."""
    check_relative_attention(query, key, value, positions, content_bias, position_bias, visible, heads)
    if query.is_cuda:
        return _relative_attention_cuda(query, key, value, positions, content_bias, position_bias, visible, heads)

    def of_heads(x: Tensor) -> Tensor:
        return x.unflatten(-1, (heads, -1)).transpose(-3, -2)  # (..., H, frames, D / H)

    frames, keys = query.shape[1], key.shape[1]
    by_content = of_heads(query + content_bias) @ of_heads(key).transpose(-2, -1)  # (B, H, T, S)
    by_distance = of_heads(query + position_bias) @ of_heads(positions).transpose(-2, -1)  # (B, H, T, S + T)
    row, column = (torch.arange(count, device=query.device) for count in (frames, keys))
    by_position = by_distance.gather(3, (frames - 1 - row.unsqueeze(1) + column).expand_as(by_content))
    scores = (by_content + by_position) * (query.shape[2] // heads) ** -0.5
    weights = scores.masked_fill(~visible[:, None, None], float("-inf")).softmax(3)
    return (weights @ of_heads(value)).transpose(1, 2).flatten(2)


def _relative_attention_cuda(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    positions: Tensor,
    content_bias: Tensor,
    position_bias: Tensor,
    visible: Tensor,
    heads: int,
) -> Tensor:
    """By torch's scaled dot product, which keeps no scores; those of positions are its mask."""
    frames, keys = query.shape[1], key.shape[1]
    scale = (query.shape[2] // heads) ** -0.5

    def of_heads(x: Tensor) -> Tensor:
        return x.unflatten(-1, (heads, -1)).transpose(-3, -2)  # (..., H, frames, D / H)

    by_distance = of_heads((query + position_bias) * scale) @ of_heads(positions).transpose(-2, -1)  # (B, H, T, S + T)
    # Key j of query i stands at column T - 1 - i + j, so rows of the flattened matrix begin S + T - 1 after each other.
    rows = by_distance.flatten(2)[..., frames - 1 : -1].unflatten(2, (frames, keys + frames - 1))[..., :keys]
    mask = rows.masked_fill(~visible[:, None, None], float("-inf"))
    given = of_heads(query + content_bias), of_heads(key), of_heads(value)
    out = F.scaled_dot_product_attention(*given, attn_mask=mask, scale=scale)
    return out.transpose(1, 2).flatten(2).masked_fill_(~visible.any(1)[:, None, None], float("nan"))


def check_conv2d_relu_quantize(
    codes: Tensor,
    scale: Tensor,
    weight: Tensor,
    weight_scale: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    heights: Tensor,
) -> None:
    """Raise RuntimeError unless types, sizes and strides fit."""
    name = "conv2d_relu_quantize"
    how = stride, (0, 0), (1, 1), 1
    check_devices(name, codes, heights)
    reference_linear.check_conv2d_w8a8(codes, scale, weight, weight_scale, bias, *how, torch.float32, name)
    torch._check(
        heights.dtype == torch.int64 and tuple(heights.shape) == codes.shape[:1],
        lambda: f"{name}: heights is {heights.dtype} {tuple(heights.shape)}; give torch.int64 {tuple(codes.shape[:1])}",
    )


def check_relative_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    positions: Tensor,
    content_bias: Tensor,
    position_bias: Tensor,
    visible: Tensor,
    heads: int,
) -> None:
    """Raise RuntimeError unless types and sizes fit."""
    name = "relative_attention"
    check_devices(name, query, key, value, positions, content_bias, position_bias, visible)
    torch._check(
        query.dim() == key.dim() == 3,
        lambda: f"{name}: sizes {tuple(query.shape)} and {tuple(key.shape)}; give (B, T, D) and (B, S, D)",
    )
    (batch, frames, width), keys = query.shape, key.shape[1]
    torch._check(
        heads > 0 and width > 0 and width % heads == 0, lambda: f"{name}: {heads} heads do not divide D = {width}"
    )
    torch._check(frames <= keys, lambda: f"{name}: {frames} queries of {keys} frames; give at most one a frame")
    for what, tensor, shape in (
        ("query", query, (batch, frames, width)),
        ("key", key, (batch, keys, width)),
        ("value", value, (batch, keys, width)),
        ("positions", positions, (keys + frames, width)),
        ("content_bias", content_bias, (width,)),
        ("position_bias", position_bias, (width,)),
    ):
        reference_linear.check_float(f"{name}: {what}", tensor, shape)
    torch._check(
        visible.dtype == torch.bool and tuple(visible.shape) == (batch, keys),
        lambda: f"{name}: visible is {visible.dtype} {tuple(visible.shape)}; give torch.bool {(batch, keys)}",
    )


def check_norm_quantize_rows(x: Tensor, weight: Tensor, bias: Tensor) -> None:
    """Raise RuntimeError unless types and sizes fit."""
    check_devices("norm_quantize_rows", x, weight, bias)
    reference_linear.check_quantize_rows(x, "norm_quantize_rows")
    for what, tensor in (("weight", weight), ("bias", bias)):
        reference_linear.check_float(f"norm_quantize_rows: {what}", tensor, tuple(x.shape[-1:]))
