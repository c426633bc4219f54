"""quantize_rows in Triton, alone and at the end of what makes the rows: a layer norm, or SiLU.

A matrix is read and its codes are written, nothing in between: an int8 product is faster than one in bfloat16 only if
its activations don't pass through memory as floats. One program holds one row in registers.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from nibble.kernels import reference_fused, reference_linear
from nibble.kernels.triton.launching import launch

# Added to a float32 below 2^22 and taken off again, this rounds half to even, as every float addition does.
_ROUNDER = tl.constexpr(1.5 * 2**23)


def quantize_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """x (..., K) -> codes int8 (..., K), scale float32 (..., 1)."""
    reference_linear.check_quantize_rows(x)
    if not x.numel():
        return reference_linear.quantize_rows(x)
    return _launch(_quantize_rows, x)


def silu_quantize_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """quantize_rows of SiLU(x), which is not rounded to 16 bits in between."""
    reference_linear.check_quantize_rows(x)
    if not x.numel():
        return reference_linear.quantize_rows(x)
    return _launch(_silu_quantize_rows, x)


def norm_quantize_rows(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """quantize_rows of the layer norm of x (..., K) with weight and bias float32 (K,)."""
    reference_fused.check_norm_quantize_rows(x, weight, bias)
    if not x.numel():
        return reference_linear.quantize_rows(x)
    return _launch(_norm_quantize_rows, x, weight.contiguous(), bias.contiguous(), eps)


def _launch(kernel: triton.JITFunction, x: Tensor, *more: Tensor | float) -> tuple[Tensor, Tensor]:
    x, terms = x.contiguous(), x.shape[-1]
    codes = torch.empty_like(x, dtype=torch.int8)
    scale = x.new_empty((*x.shape[:-1], 1), dtype=torch.float32)
    block = triton.next_power_of_2(terms)
    warps = min(max(block // 512, 1), 16)  # sixteen values of a thread
    launch(kernel, scale.numel(), x, codes, scale, *more, terms, BLOCK=block, num_warps=warps)
    return codes, scale


@triton.jit
def _quantize_rows(x: tl.tensor, codes: tl.tensor, scale: tl.tensor, terms: tl.tensor, BLOCK: tl.constexpr):
    _store_codes(_load_row(x, terms, BLOCK), codes, scale, terms, BLOCK)


@triton.jit
def _silu_quantize_rows(x: tl.tensor, codes: tl.tensor, scale: tl.tensor, terms: tl.tensor, BLOCK: tl.constexpr):
    row = _load_row(x, terms, BLOCK)
    _store_codes(row / (1.0 + tl.exp(-row)), codes, scale, terms, BLOCK)


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
    column = tl.arange(0, BLOCK)
    held = column < terms
    row = _load_row(x, terms, BLOCK)
    # The mean first, then squares of what is left: E[x^2] - E[x]^2 would cancel where the mean is large.
    centred = tl.where(held, row - tl.sum(row, 0) / terms, 0.0)
    variance = tl.sum(centred * centred, 0) / terms
    normed = centred / tl.sqrt(variance + eps)
    normed = normed * tl.load(weight + column, mask=held, other=0.0) + tl.load(bias + column, mask=held, other=0.0)
    _store_codes(normed, codes, scale, terms, BLOCK)


@triton.jit
def _load_row(x: tl.tensor, terms: tl.tensor, BLOCK: tl.constexpr):
    """The program's row in float32; beyond K it is zeros."""
    column = tl.arange(0, BLOCK)
    start = tl.program_id(0).to(tl.int64) * terms
    return tl.load(x + start + column, mask=column < terms, other=0.0).to(tl.float32)


@triton.jit
def _store_codes(row: tl.tensor, codes: tl.tensor, scale: tl.tensor, terms: tl.tensor, BLOCK: tl.constexpr):
    # As integers: of floats without sign, NaN is above infinity, which is above all numbers. A maximum of floats
    # would lose a NaN, and with it the sign that a row is bad.
    largest = tl.max(tl.abs(row).to(tl.int32, bitcast=True), 0).to(tl.float32, bitcast=True)
    # Division rounded as IEEE says: the plain one may be off in the last bit, and then a code would be.
    step = tl.div_rn(largest, 127.0)
    step = tl.where(step == 0.0, 1.0, step)
    code = tl.div_rn(row, step)
    code = tl.minimum(tl.maximum(code, -127.0), 127.0)
    code = (code + _ROUNDER) - _ROUNDER
    column = tl.arange(0, BLOCK)
    start = tl.program_id(0).to(tl.int64) * terms
    tl.store(codes + start + column, code.to(tl.int8), mask=column < terms)
    tl.store(scale + tl.program_id(0), step)
