"""linear_w8a8 in Triton, the product of training: int8 tensor cores, with scales and bias applied to the sums."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from nibble.kernels.operators.linear import LinearW4A8, LinearW8A8
from nibble.kernels.triton.launching import launch
from nibble.kernels.triton.steps import rescaled

BLOCK_TERMS = 64


def linear_w8a8(call: LinearW8A8) -> Tensor:
    """The operator."""
    (rows, terms), outputs = call.codes.shape, call.weight.shape[0]
    out = torch.empty((rows, outputs), dtype=call.dtype, device=call.codes.device)
    if not out.numel():
        return out
    # Few rows: small tiles, so that more of them run at once. tl.dot takes at least 16 rows.
    block_rows, block_outputs, warps = (16, 64, 4) if rows <= 16 else (64, 64, 4) if rows <= 256 else (128, 128, 8)
    tiles = triton.cdiv(rows, block_rows) * triton.cdiv(outputs, block_outputs)
    launch(
        _linear_w8a8,
        tiles,
        call.codes.contiguous(),
        call.scale.contiguous(),
        call.weight.contiguous(),
        call.weight_scale.contiguous(),
        call.weight_scale if call.bias is None else call.bias.contiguous(),  # without a bias, it is not read
        out,
        rows,
        outputs,
        terms,
        WHOLE=terms % BLOCK_TERMS == 0,
        HAS_BIAS=call.bias is not None,
        BLOCK_ROWS=block_rows,
        BLOCK_OUTPUTS=block_outputs,
        BLOCK_TERMS=BLOCK_TERMS,
        num_warps=warps,
        num_stages=4,
    )
    return out


def linear_w4a8(call: LinearW4A8) -> Tensor:
    """The operator, with the weight unpacked first: for a GPU without the CUDA library."""
    return linear_w8a8(call.unpacked)


# A batch of another length must not compile anew, whether or not its rows happen to be a multiple of 16.
@triton.jit(do_not_specialize=["rows"])
def _linear_w8a8(
    codes: tl.tensor,
    scale: tl.tensor,
    weight: tl.tensor,
    weight_scale: tl.tensor,
    bias: tl.tensor,
    out: tl.tensor,
    rows: tl.tensor,
    outputs: tl.tensor,
    terms: tl.tensor,
    WHOLE: tl.constexpr,  # whether blocks of terms are all full, so that none needs a mask
    HAS_BIAS: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_OUTPUTS: tl.constexpr,
    BLOCK_TERMS: tl.constexpr,
):
    # Programs that run at the same time share a block of codes, and go over all of the weight, which is the smaller.
    across = tl.cdiv(outputs, BLOCK_OUTPUTS)
    row = (tl.program_id(0) // across).to(tl.int64) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    output = (tl.program_id(0) % across).to(tl.int64) * BLOCK_OUTPUTS + tl.arange(0, BLOCK_OUTPUTS)
    row_held, output_held = row < rows, output < outputs
    term = tl.arange(0, BLOCK_TERMS)
    sums = tl.zeros((BLOCK_ROWS, BLOCK_OUTPUTS), dtype=tl.int32)
    for start in range(0, terms, BLOCK_TERMS):
        k = start + term
        x_held, w_held = row_held[:, None], output_held[None, :]
        if not WHOLE:
            x_held, w_held = x_held & (k < terms)[None, :], w_held & (k < terms)[:, None]
        x = tl.load(codes + row[:, None] * terms + k[None, :], mask=x_held, other=0)
        w = tl.load(weight + output[None, :] * terms + k[:, None], mask=w_held, other=0)
        sums = tl.dot(x, w, sums, out_dtype=tl.int32)
    row_scale = tl.load(scale + row, mask=row_held, other=0.0)[:, None]
    result = rescaled(sums, row_scale, weight_scale, bias, output, output_held, HAS_BIAS)
    to = out + row[:, None] * outputs + output[None, :]
    tl.store(to, result.to(out.dtype.element_ty), mask=row_held[:, None] & output_held[None, :])
