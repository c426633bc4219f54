"""Convolutions of codes in Triton, with scales, bias, ReLU and codes applied to the sums where they stand in registers.

Without groups, a convolution is a product whose rows are windows of the input, gathered as they are needed: nothing is
unfolded in memory. With one filter for each channel, sums are taken tap by tap. Inputs and results are in channels-last
layout.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from nibble.kernels.operators.convolution import Conv2dReluQuantize, Conv2dW8A8
from nibble.kernels.triton.launching import launch
from nibble.kernels.triton.steps import codes_of, magnitude_bits, rescaled, step_of

# What a program does with its sums, after scales and bias.
_VALUES, _LARGEST, _CODES = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2)
_SIZES = ["height", "width", "out_height", "out_width"]  # a batch of another length must not compile anew


def conv2d_w8a8(call: Conv2dW8A8) -> Tensor:
    """The operator."""
    channels, outputs = call.codes.shape[1], call.weight.shape[0]
    depthwise = call.groups > 1 and call.groups == channels == outputs
    if _is_empty(call) or (call.groups > 1 and not depthwise):
        return call.reference()
    out = _room(call, call.dtype)
    if depthwise:
        _depthwise_filters(call, out)
    else:
        unread = call.codes, call.scale, call.scale  # heights, largest, out_scale
        _windows(call, unread, out, _VALUES)
    return out


def conv2d_relu_quantize(call: Conv2dReluQuantize) -> tuple[Tensor, Tensor]:
    """The operator.

    Products are computed twice, for the largest value and for codes: with few taps, that takes less time than writing
    floats to memory and reading them.
    """
    convolution = call.convolution
    if _is_empty(convolution):
        return call.reference()
    out, out_scale = _room(convolution, torch.int8), torch.empty_like(call.scale.contiguous())
    largest = torch.zeros(len(call.codes), dtype=torch.int32, device=call.codes.device)
    found = call.heights.contiguous(), largest, out_scale
    for step in (_LARGEST, _CODES):
        _windows(convolution, found, out, step)
    return out, out_scale


def _is_empty(call: Conv2dW8A8) -> bool:
    return not call.codes.numel() or not call.weight.numel() or min(call.sums.out_size()) < 1


def _room(call: Conv2dW8A8, dtype: torch.dtype) -> Tensor:
    """A result (B, N, H', W') without values, in channels-last layout."""
    shape = (len(call.codes), *call.sums.out_size(), len(call.weight))
    return torch.empty(shape, dtype=dtype, device=call.codes.device).permute(0, 3, 1, 2)


def _factors(call: Conv2dW8A8, weight_layout: torch.memory_format) -> tuple[Tensor, ...]:
    """The tensors that both kernels take first. Without a bias, another tensor takes its place and is not read."""
    return (
        call.codes.contiguous(memory_format=torch.channels_last),
        call.weight.contiguous(memory_format=weight_layout),
        call.scale.contiguous(),
        call.weight_scale.contiguous(),
        call.weight_scale if call.bias is None else call.bias.contiguous(),
    )


def _numbers(call: Conv2dW8A8, out: Tensor) -> tuple[int, ...]:
    """The sizes and steps that both kernels take last."""
    _, outputs, height, width = out.shape
    return *call.codes.shape[2:], height, width, outputs, *call.stride, *call.padding, *call.dilation


def _windows(call: Conv2dW8A8, found: tuple[Tensor, Tensor, Tensor], out: Tensor, step: tl.constexpr) -> None:
    (batch, outputs, height, width), terms = out.shape, call.weight[0].numel()
    few = batch * height * width <= 256
    block_rows, block_outputs, warps = (64, 64, 4) if few else (128, 128, 8)
    launch(
        _convolve,
        batch * triton.cdiv(height * width, block_rows) * triton.cdiv(outputs, block_outputs),
        *_factors(call, torch.channels_last),
        *found,
        out,
        *_numbers(call, out),
        CHANNELS=call.codes.shape[1],
        KERNEL_WIDTH=call.weight.shape[3],
        TERMS=terms,
        PADDED=any(call.padding),
        HAS_BIAS=call.bias is not None,
        STEP=step,
        BLOCK_ROWS=block_rows,
        BLOCK_OUTPUTS=block_outputs,
        BLOCK_TERMS=32 if terms <= 32 else 64,
        num_warps=warps,
        num_stages=4,
    )


@triton.jit
def _tile(
    outputs: tl.tensor,
    out_height: tl.tensor,
    out_width: tl.tensor,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_OUTPUTS: tl.constexpr,
):
    """The part of the result that a program computes: some positions of one utterance, and some outputs.

    An utterance's scale and largest value are then single numbers.

    Returns:
        the utterance; the positions and whether each exists; the outputs and whether each exists.
    """
    across = tl.cdiv(outputs, BLOCK_OUTPUTS)
    down = tl.cdiv(out_height * out_width, BLOCK_ROWS)
    tile = tl.program_id(0) // across
    position = (tile % down) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    output = tl.program_id(0) % across * BLOCK_OUTPUTS + tl.arange(0, BLOCK_OUTPUTS)
    return (tile // down).to(tl.int64), position, position < out_height * out_width, output, output < outputs


@triton.jit
def _corner(
    position: tl.tensor,
    out_width: tl.tensor,
    stride_down: tl.tensor,
    stride_right: tl.tensor,
    padding_down: tl.tensor,
    padding_right: tl.tensor,
):
    """Row and column of the input under the first tap of the window of each position."""
    top = position // out_width * stride_down - padding_down
    return top, position % out_width * stride_right - padding_right


@triton.jit
def _places(
    out: tl.tensor,
    utterance: tl.tensor,
    position: tl.tensor,
    output: tl.tensor,
    positions: tl.tensor,
    outputs: tl.tensor,
):
    """Pointers to the results of a tile (positions, outputs)."""
    return out + (utterance * positions + position)[:, None] * outputs + output[None, :]


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
    utterance, position, row_held, output, output_held = _tile(
        outputs, out_height, out_width, BLOCK_ROWS, BLOCK_OUTPUTS
    )
    output = output.to(tl.int64)
    top, left = _corner(position, out_width, stride_down, stride_right, padding_down, padding_right)
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
    to = _places(out, utterance, position, output, out_height * out_width, outputs)
    if STEP == _VALUES:
        tl.store(to, result.to(out.dtype.element_ty), mask=held)
    else:
        spoken = held & (position // out_width < tl.load(heights + utterance))[:, None]
        result = tl.where(spoken & ~(result <= 0), result, 0.0)  # NaN stays
        if STEP == _LARGEST:
            found = tl.max(tl.max(magnitude_bits(result), 1), 0)
            tl.atomic_max(largest + utterance, found, sem="relaxed")
        else:
            step = step_of(tl.load(largest + utterance))
            tl.store(to, codes_of(result, step), mask=held)
            programs = tl.cdiv(outputs, BLOCK_OUTPUTS) * tl.cdiv(out_height * out_width, BLOCK_ROWS)  # of an utterance
            tl.store(out_scale + utterance, step, mask=tl.program_id(0) % programs == 0)


def _depthwise_filters(call: Conv2dW8A8, out: Tensor) -> None:
    batch, channels, height, width = out.shape
    positions, block_channels = 32, 64
    launch(
        _depthwise,
        batch * triton.cdiv(height * width, positions) * triton.cdiv(channels, block_channels),
        *_factors(call, torch.contiguous_format),
        out,
        *_numbers(call, out),
        KERNEL_WIDTH=call.weight.shape[3],
        TAPS=call.weight[0].numel(),
        HAS_BIAS=call.bias is not None,
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
    utterance, position, position_held, channel, channel_held = _tile(
        channels, out_height, out_width, BLOCK_POSITIONS, BLOCK_CHANNELS
    )
    top, left = _corner(position, out_width, stride_down, stride_right, padding_down, padding_right)
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
    to = _places(out, utterance, position, channel, out_height * out_width, channels)
    tl.store(to, result.to(out.dtype.element_ty), mask=position_held[:, None] & channel_held[None, :])
