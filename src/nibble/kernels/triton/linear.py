"""linear_w8a8 in Triton, the product of training: int8 tensor cores, with scales and bias applied to the sums."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from nibble.kernels import reference_linear
from nibble.kernels.triton.launching import launch


def linear_w8a8(codes: Tensor, scale: Tensor, weight: Tensor, weight_scale: Tensor, bias: Tensor | None) -> Tensor:
    """codes int8 (M, K), scale (M, 1), weight int8 (N, K), weight_scale (N,), bias (N,) -> float32 (M, N)."""
    reference_linear.check_linear_w8a8(codes, scale, weight, weight_scale, bias)
    (rows, terms), outputs = codes.shape, weight.shape[0]
    out = torch.empty((rows, outputs), dtype=torch.float32, device=codes.device)
    if not out.numel():
        return out
    # Few rows: small tiles, so that more of them run at once. 16 is the least that tl.dot takes.
    block_rows, block_outputs, warps = (16, 64, 4) if rows <= 16 else (64, 64, 4) if rows <= 256 else (128, 128, 8)
    tiles = triton.cdiv(rows, block_rows) * triton.cdiv(outputs, block_outputs)
    launch(
        _linear_w8a8,
        tiles,
        codes.contiguous(),
        scale.contiguous(),
        weight.contiguous(),
        weight_scale.contiguous(),
        weight_scale if bias is None else bias.contiguous(),  # not read
        out,
        rows,
        outputs,
        TERMS=terms,  # a constant: there are few, and the compiler can leave out tests that always hold
        HAS_BIAS=bias is not None,
        BLOCK_ROWS=block_rows,
        BLOCK_OUTPUTS=block_outputs,
        BLOCK_TERMS=64,
        num_warps=warps,
        num_stages=4,
    )
    return out


@triton.jit
def _linear_w8a8(
    codes: tl.tensor,
    scale: tl.tensor,
    weight: tl.tensor,
    weight_scale: tl.tensor,
    bias: tl.tensor,
    out: tl.tensor,
    rows: tl.tensor,
    outputs: tl.tensor,
    TERMS: tl.constexpr,
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
    for start in range(0, TERMS, BLOCK_TERMS):
        k = start + term
        held = k < TERMS
        x = tl.load(codes + row[:, None] * TERMS + k[None, :], mask=row_held[:, None] & held[None, :], other=0)
        w = tl.load(weight + output[None, :] * TERMS + k[:, None], mask=output_held[None, :] & held[:, None], other=0)
        sums = tl.dot(x, w, sums, out_dtype=tl.int32)
    result = sums.to(tl.float32) * tl.load(scale + row, mask=row_held, other=0.0)[:, None]
    result = result * tl.load(weight_scale + output, mask=output_held, other=0.0)[None, :]
    if HAS_BIAS:
        # For Blackwell, ptxas fuses a product and a sum although told not to; a choice between them keeps them apart.
        result = tl.where(output_held[None, :], result, 0.0)
        result = result + tl.load(bias + output, mask=output_held, other=0.0)[None, :]
    tl.store(out + row[:, None] * outputs + output[None, :], result, mask=row_held[:, None] & output_held[None, :])
