"""Convolutions of codes in Triton, with scales, bias, ReLU and codes applied to the sums where they stand in registers.

Without groups, a convolution is a product whose rows are windows of the input, gathered as they are needed: nothing is
unfolded in memory. With one filter a channel, sums are taken tap by tap. Inputs and results are in channels-last
layout.
"""

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from nibble.kernels import reference, reference_fused, reference_linear
from nibble.kernels.triton.launching import launch
from nibble.kernels.triton.steps import codes_of, magnitude_bits, rescaled, step_of

# What a program does with its sums, after scales and bias.
_VALUES, _LARGEST, _CODES = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2)
_SIZES = ["height", "width", "out_height", "out_width"]  # a batch of another length must not compile anew


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
    how = stride, padding, dilation, groups, dtype
    reference_linear.check_conv2d_w8a8(codes, scale, weight, weight_scale, bias, *how)
    depthwise = groups > 1 and groups == codes.shape[1] == weight.shape[0]
    height, width = reference.conv_size(codes, weight, stride, padding, dilation)
    if not codes.numel() or not weight.numel() or min(height, width) < 1 or (groups > 1 and not depthwise):
        return reference_linear.conv2d_w8a8(codes, scale, weight, weight_scale, bias, *how)
    out = _channels_last(codes, len(weight), height, width, dtype)
    given = scale.contiguous(), weight_scale.contiguous(), weight_scale if bias is None else bias.contiguous()
    move = (*stride, *padding, *dilation)
    if depthwise:
        _depthwise_filters(codes, weight, given, out, move, bias is not None)
    else:
        unread = codes, scale, scale  # heights, largest, out_scale
        _windows(codes, weight, given, unread, out, move, bias is not None, _VALUES)
    return out


def conv2d_relu_quantize(
    codes: Tensor,
    scale: Tensor,
    weight: Tensor,
    weight_scale: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    heights: Tensor,
) -> tuple[Tensor, Tensor]:
    """Codes and scales (B,) of ReLU(conv2d_w8a8(...)), zero from `heights` (B,) on.

    Products are taken twice, for the largest value and for codes: with few taps, that is sooner done than floats are
    written to memory and read.
    """
    reference_fused.check_conv2d_relu_quantize(codes, scale, weight, weight_scale, bias, stride, heights)
    height, width = reference.conv_size(codes, weight, stride, (0, 0), (1, 1))
    if not codes.numel() or not weight.numel() or min(height, width) < 1:
        return reference_fused.conv2d_relu_quantize(codes, scale, weight, weight_scale, bias, stride, heights)
    out = _channels_last(codes, len(weight), height, width, torch.int8)
    given = scale.contiguous(), weight_scale.contiguous(), weight_scale if bias is None else bias.contiguous()
    largest = torch.zeros(len(codes), dtype=torch.int32, device=codes.device)
    out_scale = torch.empty_like(given[0])
    found = heights.contiguous(), largest, out_scale
    for step in (_LARGEST, _CODES):
        _windows(codes, weight, given, found, out, (*stride, 0, 0, 1, 1), bias is not None, step)
    return out, out_scale


def _channels_last(like: Tensor, outputs: int, height: int, width: int, dtype: torch.dtype) -> Tensor:
    shape = (len(like), height, width, outputs)
    return torch.empty(shape, dtype=dtype, device=like.device).permute(0, 3, 1, 2)


def _windows(
    codes: Tensor,
    weight: Tensor,
    given: tuple[Tensor, Tensor, Tensor],
    found: tuple[Tensor, Tensor, Tensor],
    out: Tensor,
    move: tuple[int, ...],
    has_bias: bool,
    step: tl.constexpr,
) -> None:
    (batch, outputs, height, width), channels = out.shape, codes.shape[1]
    few = batch * height * width <= 256
    block_rows, block_outputs, warps = (64, 64, 4) if few else (128, 128, 8)
    terms = weight[0].numel()
    launch(
        _convolve,
        batch * triton.cdiv(height * width, block_rows) * triton.cdiv(outputs, block_outputs),
        codes.contiguous(memory_format=torch.channels_last),
        weight.contiguous(memory_format=torch.channels_last),
        *given,
        *found,
        out,
        *codes.shape[2:],
        height,
        width,
        outputs,
        *move,
        CHANNELS=channels,
        KERNEL_WIDTH=weight.shape[3],
        TERMS=terms,
        PADDED=any(move[2:4]),
        HAS_BIAS=has_bias,
        STEP=step,
        BLOCK_ROWS=block_rows,
        BLOCK_OUTPUTS=block_outputs,
        BLOCK_TERMS=32 if terms <= 32 else 64,
        num_warps=warps,
        num_stages=4,
    )


@triton.jit(do_not_specialize=_SIZES)
def _convolve(
    codes: tl.tensor,
    weight: tl.tensor,
    scale: tl.tensor,
    weight_scale: tl.tensor,
    bias: tl.tensor,
    heights: tl.tensor,
    largest: tl.tensor,
    out_scale: tl.tensor,
    out: tl.tensor,
    height: tl.tensor,
    width: tl.tensor,
    out_height: tl.tensor,
    out_width: tl.tensor,
    outputs: tl.tensor,
    stride_down: tl.tensor,
    stride_right: tl.tensor,
    padding_down: tl.tensor,
    padding_right: tl.tensor,
    dilation_down: tl.tensor,
    dilation_right: tl.tensor,
    CHANNELS: tl.constexpr,  # constants, so that the compiler sees runs of codes that lie side by side
    KERNEL_WIDTH: tl.constexpr,
    TERMS: tl.constexpr,
    PADDED: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    STEP: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_OUTPUTS: tl.constexpr,
    BLOCK_TERMS: tl.constexpr,
):
    # A tile has windows of one utterance, whose scale and largest value are numbers.
    across = tl.cdiv(outputs, BLOCK_OUTPUTS)
    down = tl.cdiv(out_height * out_width, BLOCK_ROWS)
    tile = tl.program_id(0) // across
    utterance = (tile // down).to(tl.int64)
    position = (tile % down) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    output = (tl.program_id(0) % across).to(tl.int64) * BLOCK_OUTPUTS + tl.arange(0, BLOCK_OUTPUTS)
    row_held, output_held = position < out_height * out_width, output < outputs
    out_row = position // out_width
    top, left = out_row * stride_down - padding_down, position % out_width * stride_right - padding_right
    corner = (utterance * height * width + top * width + left) * CHANNELS
    sums = tl.zeros((BLOCK_ROWS, BLOCK_OUTPUTS), dtype=tl.int32)
    for start in range(0, TERMS, BLOCK_TERMS):
        term = start + tl.arange(0, BLOCK_TERMS)
        tap, channel = term // CHANNELS, term % CHANNELS
        below, beside = tap // KERNEL_WIDTH * dilation_down, tap % KERNEL_WIDTH * dilation_right
        x_held, w_held = row_held[:, None], output_held[None, :]
        if TERMS % BLOCK_TERMS != 0:
            x_held, w_held = x_held & (term < TERMS)[None, :], w_held & (term < TERMS)[:, None]
        if PADDED:
            row, column = top[:, None] + below[None, :], left[:, None] + beside[None, :]
            x_held = x_held & (row >= 0) & (row < height) & (column >= 0) & (column < width)
        offset = (below * width + beside) * CHANNELS + channel
        x = tl.load(codes + corner[:, None] + offset[None, :], mask=x_held, other=0)
        w = tl.load(weight + output[None, :] * TERMS + term[:, None], mask=w_held, other=0)
        sums = tl.dot(x, w, sums, out_dtype=tl.int32)
    result = rescaled(sums, tl.load(scale + utterance), weight_scale, bias, output, output_held, HAS_BIAS)
    held = row_held[:, None] & output_held[None, :]
    to = out + (utterance * out_height * out_width + position)[:, None] * outputs + output[None, :]
    if STEP == _VALUES:
        tl.store(to, result.to(out.dtype.element_ty), mask=held)
    else:
        spoken = held & (out_row < tl.load(heights + utterance))[:, None]
        result = tl.where(spoken & ~(result <= 0), result, 0.0)  # NaN stays
        if STEP == _LARGEST:
            found = tl.max(tl.max(magnitude_bits(result), 1), 0)
            tl.atomic_max(largest + utterance, found, sem="relaxed")
        else:
            step = step_of(tl.load(largest + utterance))
            tl.store(to, codes_of(result, step), mask=held)
            tl.store(out_scale + utterance, step, mask=tl.program_id(0) % (across * down) == 0)


def _depthwise_filters(
    codes: Tensor,
    weight: Tensor,
    given: tuple[Tensor, Tensor, Tensor],
    out: Tensor,
    move: tuple[int, ...],
    has_bias: bool,
) -> None:
    batch, channels, height, width = out.shape
    positions, block_channels = 32, 64
    launch(
        _depthwise,
        batch * triton.cdiv(height * width, positions) * triton.cdiv(channels, block_channels),
        codes.contiguous(memory_format=torch.channels_last),
        weight.contiguous(),
        *given,
        out,
        *codes.shape[2:],
        height,
        width,
        channels,
        *move,
        KERNEL_WIDTH=weight.shape[3],
        TAPS=weight[0].numel(),
        HAS_BIAS=has_bias,
        BLOCK_POSITIONS=positions,
        BLOCK_CHANNELS=block_channels,
        num_warps=4,
    )


@triton.jit(do_not_specialize=_SIZES)
def _depthwise(
    codes: tl.tensor,
    weight: tl.tensor,
    scale: tl.tensor,
    weight_scale: tl.tensor,
    bias: tl.tensor,
    out: tl.tensor,
    height: tl.tensor,
    width: tl.tensor,
    out_height: tl.tensor,
    out_width: tl.tensor,
    channels: tl.tensor,
    stride_down: tl.tensor,
    stride_right: tl.tensor,
    padding_down: tl.tensor,
    padding_right: tl.tensor,
    dilation_down: tl.tensor,
    dilation_right: tl.tensor,
    KERNEL_WIDTH: tl.constexpr,
    TAPS: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    BLOCK_POSITIONS: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
):
    across = tl.cdiv(channels, BLOCK_CHANNELS)
    down = tl.cdiv(out_height * out_width, BLOCK_POSITIONS)
    tile = tl.program_id(0) // across
    utterance = (tile // down).to(tl.int64)
    position = (tile % down) * BLOCK_POSITIONS + tl.arange(0, BLOCK_POSITIONS)
    channel = tl.program_id(0) % across * BLOCK_CHANNELS + tl.arange(0, BLOCK_CHANNELS)
    position_held, channel_held = position < out_height * out_width, channel < channels
    top = position // out_width * stride_down - padding_down
    left = position % out_width * stride_right - padding_right
    first = utterance * height * width
    sums = tl.zeros((BLOCK_POSITIONS, BLOCK_CHANNELS), dtype=tl.int32)
    for tap in range(TAPS):
        row, column = top + tap // KERNEL_WIDTH * dilation_down, left + tap % KERNEL_WIDTH * dilation_right
        inside = position_held & (row >= 0) & (row < height) & (column >= 0) & (column < width)
        at = (first + row * width + column) * channels
        x = tl.load(codes + at[:, None] + channel[None, :], mask=inside[:, None] & channel_held[None, :], other=0)
        w = tl.load(weight + channel * TAPS + tap, mask=channel_held, other=0)
        sums += x.to(tl.int32) * w.to(tl.int32)[None, :]
    result = rescaled(sums, tl.load(scale + utterance), weight_scale, bias, channel, channel_held, HAS_BIAS)
    to = out + (utterance * out_height * out_width + position)[:, None] * channels + channel[None, :]
    tl.store(to, result.to(out.dtype.element_ty), mask=position_held[:, None] & channel_held[None, :])
