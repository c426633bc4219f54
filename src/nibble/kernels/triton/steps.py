"""Steps on values in registers that several Triton kernels share: rescale sums, find a scale, round to codes."""

import triton
import triton.language as tl

# Added to a float32 below 2^22 and taken off again, this rounds half to even, as every float addition does.
_ROUNDER = tl.constexpr(1.5 * 2**23)


@triton.jit
def rescaled(
    sums: tl.tensor,
    scale: tl.tensor,
    weight_scale: tl.tensor,
    bias: tl.tensor,
    output: tl.tensor,
    held: tl.tensor,
    HAS_BIAS: tl.constexpr,
):
    """((float(sums) scale) weight_scale) + bias of int32 sums (rows, outputs), each step rounded.

    Args:
        sums: a block of them.
        scale: one for each row (rows, 1), or one for all.
        weight_scale: pointer to one scale for each output.
        bias: pointer to one number for each output.
        output: the numbers of the outputs.
        held: whether each output exists.
        HAS_BIAS: whether there is a bias.
    """
    result = sums.to(tl.float32) * scale
    result = result * tl.load(weight_scale + output, mask=held, other=0.0)[None, :]
    if HAS_BIAS:
        # For Blackwell, ptxas fuses a product and a sum although told not to; a choice between them keeps them apart.
        result = tl.where(held[None, :], result, 0.0)
        result = result + tl.load(bias + output, mask=held, other=0.0)[None, :]
    return result


@triton.jit
def magnitude_bits(values: tl.tensor):
    """The bits of |values| as integers, which have the order of the magnitudes.

    As integers, NaN without its sign is above infinity, and infinity above all numbers. A maximum of floats would lose
    a NaN, and nothing would tell that the row is bad.
    """
    return tl.abs(values).to(tl.int32, bitcast=True)


@triton.jit
def step_of(largest: tl.tensor):
    """The scale of a row whose largest magnitude has these bits."""
    # IEEE division: the default one may be off in the last bit, and then a code would be wrong.
    step = tl.div_rn(largest.to(tl.float32, bitcast=True), 127.0)
    return tl.where(step == 0.0, 1.0, step)


@triton.jit
def codes_of(values: tl.tensor, step: tl.tensor):
    """int8 codes of float32 values in steps of `step`, rounded half to even."""
    code = tl.div_rn(values, step)
    code = tl.minimum(tl.maximum(code, -127.0), 127.0)
    return rounded(code).to(tl.int8)


@triton.jit
def rounded(values: tl.tensor):
    """float32 values below 2^22 rounded half to even."""
    return (values + _ROUNDER) - _ROUNDER
