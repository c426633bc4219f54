"""quantize_rows in Triton, alone, or after the layer norm or the SiLU that makes the rows.

A matrix is read and its codes are written; nothing else goes through memory. An int8 product is faster than one in
bfloat16 only if its activations don't pass through memory as floats.

A program holds a row of up to `LONGEST` terms in registers. A longer row, such as a convolution's whole utterance, is
read twice in chunks, each by a program of its own: for its largest magnitude, then for its codes. Kernels are compiled
for a block size, a power of two, and for whether K is a multiple of 16; a new batch asks for no new one.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from nibble.kernels.operators.rows import NormQuantizeRows, QuantizeRows, SiluQuantizeRows
from nibble.kernels.triton.launching import launch
from nibble.kernels.triton.steps import codes_of, magnitude_bits, step_of

LONGEST = 16_384  # terms; a longer row takes minutes to compile, and its values don't fit in registers
CHUNK = 4_096  # terms of a longer row that a program reads


def quantize_rows(call: QuantizeRows) -> tuple[Tensor, Tensor]:
    """The operator."""
    return _quantize(call.x, silu=False)


def silu_quantize_rows(call: SiluQuantizeRows) -> tuple[Tensor, Tensor]:
    """The operator; SiLU(x) is not rounded to 16 bits in between."""
    return _quantize(call.x, silu=True)


def norm_quantize_rows(call: NormQuantizeRows) -> tuple[Tensor, Tensor]:
    """The operator."""
    if not call.x.numel() or call.x.shape[-1] > LONGEST:  # no network here normalizes a longer row
        return call.reference()
    x, codes, scale = _with_results(call.x)
    terms = x.shape[-1]
    block, warps = _block(terms)
    given = call.weight.contiguous(), call.bias.contiguous(), call.eps
    launch(_norm_quantize_rows, scale.numel(), x, codes, scale, *given, terms, BLOCK=block, num_warps=warps)
    return codes, scale


def _quantize(x: Tensor, silu: bool) -> tuple[Tensor, Tensor]:
    if not x.numel():
        return QuantizeRows(x).reference()
    x, codes, scale = _with_results(x)
    rows, terms = scale.numel(), x.shape[-1]
    block, warps = _block(min(terms, CHUNK if terms > LONGEST else LONGEST))
    options = {"SILU": silu, "BLOCK": block, "num_warps": warps}
    if terms <= LONGEST:
        launch(_quantize_rows, rows, x, codes, scale, terms, **options)
        return codes, scale
    chunks = triton.cdiv(terms, CHUNK)
    largest = torch.zeros(rows, dtype=torch.int32, device=x.device)
    launch(_largest_of_rows, rows * chunks, x, largest, terms, chunks, **options)
    launch(_quantize_chunks, rows * chunks, x, codes, scale, largest, terms, chunks, **options)
    return codes, scale


def _with_results(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """x, contiguous, and room for its codes and scales."""
    x = x.contiguous()
    return x, torch.empty_like(x, dtype=torch.int8), x.new_empty((*x.shape[:-1], 1), dtype=torch.float32)


def _block(terms: int) -> tuple[int, int]:
    """The size of the block that holds a row, and its warps: sixteen values a thread, in the longest rows 32."""
    block = triton.next_power_of_2(terms)
    return block, min(max(block // 512, 1), 16)


@triton.jit
def _quantize_rows(
    x: tl.tensor, codes: tl.tensor, scale: tl.tensor, terms: tl.tensor, SILU: tl.constexpr, BLOCK: tl.constexpr
):
    row = tl.program_id(0).to(tl.int64)
    values = _load(x, row, 0, terms, SILU, BLOCK)
    step = step_of(_largest(values))
    _store_codes(values, step, codes, row, 0, terms, BLOCK)
    tl.store(scale + row, step)


@triton.jit
def _norm_quantize_rows(
    x: tl.tensor,
    codes: tl.tensor,
    scale: tl.tensor,
    weight: tl.tensor,
    bias: tl.tensor,
    eps: tl.tensor,
    terms: tl.tensor,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    held = column < terms
    values = _load(x, row, 0, terms, False, BLOCK)
    # The mean first, then squares of the differences: E[x^2] - E[x]^2 would cancel where the mean is large.
    centred = tl.where(held, values - tl.sum(values, 0) / terms, 0.0)
    variance = tl.sum(centred * centred, 0) / terms
    normed = centred / tl.sqrt(variance + eps)
    normed = normed * tl.load(weight + column, mask=held, other=0.0) + tl.load(bias + column, mask=held, other=0.0)
    step = step_of(_largest(normed))
    _store_codes(normed, step, codes, row, 0, terms, BLOCK)
    tl.store(scale + row, step)


@triton.jit(do_not_specialize=["chunks"])
def _largest_of_rows(
    x: tl.tensor, largest: tl.tensor, terms: tl.tensor, chunks: tl.tensor, SILU: tl.constexpr, BLOCK: tl.constexpr
):
    row, chunk = (tl.program_id(0) // chunks).to(tl.int64), tl.program_id(0) % chunks
    values = _load(x, row, chunk * BLOCK, terms, SILU, BLOCK)
    tl.atomic_max(largest + row, _largest(values), sem="relaxed")


@triton.jit(do_not_specialize=["chunks"])
def _quantize_chunks(
    x: tl.tensor,
    codes: tl.tensor,
    scale: tl.tensor,
    largest: tl.tensor,
    terms: tl.tensor,
    chunks: tl.tensor,
    SILU: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row, chunk = (tl.program_id(0) // chunks).to(tl.int64), tl.program_id(0) % chunks
    step = step_of(tl.load(largest + row))
    _store_codes(_load(x, row, chunk * BLOCK, terms, SILU, BLOCK), step, codes, row, chunk * BLOCK, terms, BLOCK)
    tl.store(scale + row, step, mask=chunk == 0)


@triton.jit
def _load(x: tl.tensor, row: tl.tensor, first: tl.tensor, terms: tl.tensor, SILU: tl.constexpr, BLOCK: tl.constexpr):
    """BLOCK values of a row from its column `first` on, in float32; beyond K they are zeros."""
    column = first + tl.arange(0, BLOCK)
    values = tl.load(x + row * terms + column, mask=column < terms, other=0.0).to(tl.float32)
    if SILU:
        values = values / (1.0 + tl.exp(-values))
    return values


@triton.jit
def _largest(values: tl.tensor):
    """The bits of the largest magnitude."""
    return tl.max(magnitude_bits(values), 0)


@triton.jit
def _store_codes(
    values: tl.tensor,
    step: tl.tensor,
    codes: tl.tensor,
    row: tl.tensor,
    first: tl.tensor,
    terms: tl.tensor,
    BLOCK: tl.constexpr,
):
    column = first + tl.arange(0, BLOCK)
    tl.store(codes + row * terms + column, codes_of(values, step), mask=column < terms)
