"""quantize_weights in Triton: all weights of a network in one launch.

Each step quantizes every weight again. One by one, that takes about eighteen kernels for each weight, most of them
shorter than their launch. Here one program quantizes one slice of any of the weights.
"""

from collections.abc import Sequence
from functools import lru_cache

import torch
import triton
import triton.language as tl
from torch import Tensor

from nibble.kernels.operators.weights import QuantizeWeights
from nibble.kernels.triton.launching import launch
from nibble.kernels.triton.steps import rounded

BLOCK = 512  # values of a slice that a program reads at once
ALIGNMENT = 256  # bytes, of each weight's codes: products read them in vectors


def quantize_weights(call: QuantizeWeights) -> tuple[list[Tensor], Tensor]:
    """The operator."""
    weights, device = call.weights, call.weights[0].device
    sizes = tuple(weight.numel() for weight in weights)
    starts, slices, owners = _layout(sizes, tuple(call.terms), tuple(call.bits), device)
    flat = torch.empty(starts[-1], dtype=torch.int8, device=device)
    scale = torch.empty(len(owners), dtype=torch.float32, device=device)
    places = _places(addresses(weights), device)
    launch(_quantize_weights, len(owners), flat, scale, weights[0], places, slices, owners, BLOCK=BLOCK, num_warps=4)
    codes = [
        flat.as_strided(weight.shape, weight.stride(), start)
        for weight, start in zip(weights, starts[:-1], strict=True)
    ]
    return codes, scale


def addresses(weights: Sequence[Tensor]) -> tuple[int, ...]:
    """The addresses of the weights in memory."""
    return tuple(weight.data_ptr() for weight in weights)


# These tables are made when a network is first quantized, and again if its parameters move, as under FSDP.


@lru_cache(maxsize=4)
def _places(addresses: tuple[int, ...], device: torch.device) -> Tensor:
    """The addresses on the device, int64 (weights,)."""
    return _on_device(torch.tensor(addresses, dtype=torch.int64), device)


@lru_cache(maxsize=4)
def _layout(
    sizes: tuple[int, ...], terms: tuple[int, ...], bits: tuple[int, ...], device: torch.device
) -> tuple[list[int], Tensor, Tensor]:
    """The starts of each weight's codes and the end of the last; then the two tables that programs read.

    The first table, int64 (weights, 4), has for each weight the terms of a slice, its first slice, the start of its
    codes and the highest code. The second, int32 (slices,), has for each slice the weight that it belongs to.
    """
    starts, rows, first = [0], [], 0
    for size, length, width in zip(sizes, terms, bits, strict=True):
        rows.append((length, first, starts[-1], 2 ** (width - 1) - 1))
        first += size // length
        starts.append(starts[-1] + triton.cdiv(size, ALIGNMENT) * ALIGNMENT)
    counts = torch.tensor([size // length for size, length in zip(sizes, terms, strict=True)])
    owners = torch.repeat_interleave(torch.arange(len(sizes), dtype=torch.int32), counts)
    return starts, _on_device(torch.tensor(rows, dtype=torch.int64), device), _on_device(owners, device)


def _on_device(table: Tensor, device: torch.device) -> Tensor:
    # From pinned memory, so that the copy waits for nothing.
    return table.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else table


@triton.jit
def _quantize_weights(
    codes: tl.tensor,
    scale: tl.tensor,
    like: tl.tensor,  # a weight, for the type of all
    places: tl.tensor,
    slices: tl.tensor,
    owners: tl.tensor,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0)
    weight = tl.load(owners + row)
    terms = tl.load(slices + weight * 4)
    start = (row - tl.load(slices + weight * 4 + 1)) * terms
    highest = tl.load(slices + weight * 4 + 3).to(tl.float32)
    values = tl.load(places + weight).to(like.dtype) + start
    codes += tl.load(slices + weight * 4 + 2) + start
    column = tl.arange(0, BLOCK)
    # As integers, as in `rows`: NaN is above infinity, and that above all numbers.
    largest = tl.zeros((BLOCK,), dtype=tl.int32)
    first = 0
    while first < terms:
        value = tl.load(values + first + column, mask=first + column < terms, other=0.0).to(tl.float32)
        largest = tl.maximum(largest, tl.abs(value).to(tl.int32, bitcast=True))
        first += BLOCK
    step = tl.div_rn(tl.max(largest, 0).to(tl.float32, bitcast=True), highest)
    step = step.to(tl.float16).to(tl.float32)  # as it is stored
    step = tl.where(step == 0.0, 1.0, step)
    tl.store(scale + row, step)
    first = 0
    while first < terms:
        value = tl.load(values + first + column, mask=first + column < terms, other=0.0).to(tl.float32)
        code = tl.div_rn(value, step)
        code = tl.minimum(tl.maximum(code, -highest), highest)
        code = rounded(code)
        tl.store(codes + first + column, code.to(tl.int8), mask=first + column < terms)
        first += BLOCK
