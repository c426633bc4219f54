"""The recurrence of an LSTM on int8 codes in Triton: all steps in one kernel, forward and backward.

A program holds 16 sequences, which depend on no other, and goes through their steps. In each step it reads the weight's
codes, which stay in the L2 cache, and writes the next step's input to memory that no other program uses. The threads of
a program wait for each other where one reads a value that another has written.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from nibble.kernels.triton.launching import launch
from nibble.kernels.triton.steps import rounded

_ROWS = 16  # sequences of a program: the least that tl.dot takes
_SIZES = {"ROWS": _ROWS, "BLOCK": 64, "TERMS": 64, "num_warps": 8, "num_stages": 3}
# The type of the backward products' factors. The interpreter takes the same values in float32: it keeps bfloat16 as
# integers, and would multiply those.
_FACTOR = tl.constexpr(tl.float32 if triton.knobs.runtime.interpret else tl.bfloat16)


class Steps(NamedTuple):
    """The results of all steps; U steps, B sequences, N units."""

    gates: Tensor  # (U, B, 4, N): update, forget, candidate, output
    cells: Tensor  # (U + 1, B, N), from that before the first step on
    hidden: Tensor  # (B, U, N)
    codes: Tensor  # int8 (U, B, N), of the hidden state before each step
    scale: Tensor  # (U, B, 1)


def forward(from_input: Tensor, codes: Tensor, scale: Tensor, cell: Tensor, weight: tuple[Tensor, Tensor]) -> Steps:
    """All steps, in float32 except for the codes.

    Args:
        from_input: the input's part of the gates, (B, U, 4N).
        codes: of the hidden state before the first step, int8 (B, N).
        scale: (B, 1)
        cell: before the first step, (B, N).
        weight: codes int8 (4N, N) and scales (4N,).
    """
    batch, steps, units = *from_input.shape[:2], cell.shape[1]
    made = Steps(
        from_input.new_empty((steps, batch, 4, units)),
        from_input.new_empty((steps + 1, batch, units)),
        from_input.new_empty((batch, steps, units)),
        codes.new_empty((steps, batch, units)),
        scale.new_empty((steps, batch, 1)),
    )
    made.cells[0], made.codes[0], made.scale[0] = cell, codes, scale
    given = (x.contiguous() for x in (from_input, *weight))
    launch(_forward, triton.cdiv(batch, _ROWS), *given, *made, batch, steps, UNITS=units, **_SIZES)
    return made


def backward(
    slopes: Tensor,
    through: Tensor,
    forget: Tensor,
    by_hidden: Tensor,
    by_cell: Tensor,
    weight: tuple[Tensor, Tensor],
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients with respect to the gates' inputs (U, B, 4, N), the first hidden state and the first cell (B, N).

    Args:
        slopes: how each gate's input moves the cell or, the last, the hidden state, (U, B, 4, N).
        through: how the cell moves the hidden state, (U, B, N).
        forget: how it moves the next cell, (U, B, N), units side by side.
        by_hidden: the gradient by hidden states, (B, U, N).
        by_cell: the gradient by the last cell, (B, N).
        weight: codes int8 (4N, N) and scales (4N,).
    """
    steps, batch, _, units = slopes.shape
    by_gates, carried, by_cell = torch.empty_like(slopes), torch.zeros_like(by_cell), by_cell.clone()
    given = (x.contiguous() for x in (slopes, through, forget, by_hidden, *weight))
    launch(
        _backward, triton.cdiv(batch, _ROWS), *given, by_gates, carried, by_cell, batch, steps, UNITS=units, **_SIZES
    )
    return by_gates, carried, by_cell


@triton.jit(do_not_specialize=["batch", "steps"])
def _forward(
    from_input: tl.tensor,
    weight: tl.tensor,
    weight_scale: tl.tensor,
    gates: tl.tensor,
    cells: tl.tensor,
    hidden: tl.tensor,
    codes: tl.tensor,
    scale: tl.tensor,
    batch: tl.tensor,
    steps: tl.tensor,
    UNITS: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
    TERMS: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    row_held = row < batch
    step = 0
    while step < steps:  # not a range, as in the lattice's kernel
        now = step * batch.to(tl.int64) + row
        x_scale = tl.load(scale + now, row_held, 1.0)[:, None]
        largest = tl.zeros([ROWS], tl.int32)
        for first in range(0, UNITS, BLOCK):
            unit = first + tl.arange(0, BLOCK)
            held = row_held[:, None] & (unit < UNITS)[None, :]
            s0, s1, s2, s3 = _sums(codes + now[:, None] * UNITS, weight, row_held, unit, UNITS, ROWS, BLOCK, TERMS)
            x = from_input + ((row * steps + step) * 4 * UNITS)[:, None] + unit[None, :]
            update = _sigmoid(_gate(s0, x_scale, weight_scale, x, 0, unit, held, UNITS))
            forget = _sigmoid(_gate(s1, x_scale, weight_scale, x, 1, unit, held, UNITS))
            candidate = _tanh(_gate(s2, x_scale, weight_scale, x, 2, unit, held, UNITS))
            output = _sigmoid(_gate(s3, x_scale, weight_scale, x, 3, unit, held, UNITS))
            at = now[:, None] * UNITS + unit[None, :]
            cell = forget * tl.load(cells + at, held, 0.0) + update * candidate
            state = output * _tanh(cell)
            gate = gates + now[:, None] * 4 * UNITS + unit[None, :]
            tl.store(gate, update, held)
            tl.store(gate + UNITS, forget, held)
            tl.store(gate + 2 * UNITS, candidate, held)
            tl.store(gate + 3 * UNITS, output, held)
            tl.store(cells + batch.to(tl.int64) * UNITS + at, cell, held)
            tl.store(hidden + (row * steps + step)[:, None] * UNITS + unit[None, :], state, held)
            # As integers, so that a NaN is the largest, as in `rows`.
            magnitude = tl.where(held, tl.abs(state), 0.0).to(tl.int32, bitcast=True)
            largest = tl.maximum(largest, tl.max(magnitude, 1))
        tl.debug_barrier()
        after = row_held & (step + 1 < steps)
        next_scale = tl.div_rn(largest.to(tl.float32, bitcast=True), 127.0)
        next_scale = tl.where(next_scale == 0.0, 1.0, next_scale)
        tl.store(scale + batch + now, next_scale, after)
        for first in range(0, UNITS, BLOCK):
            unit = first + tl.arange(0, BLOCK)
            held = after[:, None] & (unit < UNITS)[None, :]
            state = tl.load(hidden + (row * steps + step)[:, None] * UNITS + unit[None, :], held, 0.0)
            code = tl.minimum(tl.maximum(tl.div_rn(state, next_scale[:, None]), -127.0), 127.0)
            code = rounded(code)
            tl.store(codes + (batch + now)[:, None] * UNITS + unit[None, :], code.to(tl.int8), held)
        tl.debug_barrier()
        step += 1


@triton.jit
def _sums(
    codes: tl.tensor,
    weight: tl.tensor,
    row_held: tl.tensor,
    unit: tl.tensor,
    UNITS: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
    TERMS: tl.constexpr,
):
    """The products of the hidden codes with the weights of some units' four gates, int32 (ROWS, BLOCK) each."""
    s0 = tl.zeros([ROWS, BLOCK], tl.int32)
    s1, s2, s3 = s0, s0, s0
    for start in range(0, UNITS, TERMS):
        k = start + tl.arange(0, TERMS)
        x = tl.load(codes + k[None, :], row_held[:, None] & (k < UNITS)[None, :], 0)
        held = (k < UNITS)[:, None] & (unit < UNITS)[None, :]
        w = weight + unit[None, :] * UNITS + k[:, None]
        s0 = tl.dot(x, tl.load(w, held, 0), s0, out_dtype=tl.int32)
        s1 = tl.dot(x, tl.load(w + UNITS * UNITS, held, 0), s1, out_dtype=tl.int32)
        s2 = tl.dot(x, tl.load(w + 2 * UNITS * UNITS, held, 0), s2, out_dtype=tl.int32)
        s3 = tl.dot(x, tl.load(w + 3 * UNITS * UNITS, held, 0), s3, out_dtype=tl.int32)
    return s0, s1, s2, s3


@triton.jit
def _gate(
    sums: tl.tensor,
    x_scale: tl.tensor,
    weight_scale: tl.tensor,
    from_input: tl.tensor,
    number: tl.constexpr,
    unit: tl.tensor,
    held: tl.tensor,
    UNITS: tl.constexpr,
):
    """The input of a gate's activation, in the reference's order of roundings."""
    w_scale = tl.load(weight_scale + number * UNITS + unit, unit < UNITS, 0.0)
    return tl.load(from_input + number * UNITS, held, 0.0) + (sums.to(tl.float32) * x_scale) * w_scale[None, :]


@triton.jit
def _sigmoid(x: tl.tensor):
    return 1.0 / (1.0 + tl.exp(-x))


@triton.jit
def _tanh(x: tl.tensor):
    e = tl.exp(-2.0 * tl.abs(x))
    far = (1.0 - e) / (1.0 + e)
    s = x * x  # near zero 1 - e cancels; the series is off by less than 1e-9 of x there
    near = x * (1.0 - s * (1 / 3 - s * (2 / 15 - s * (17 / 315 - s * (62 / 2835 - s * (1382 / 155925))))))
    return tl.where(tl.abs(x) < 0.25, near, tl.where(x < 0.0, -far, far))


@triton.jit(do_not_specialize=["batch", "steps"])
def _backward(
    slopes: tl.tensor,
    through: tl.tensor,
    forget: tl.tensor,
    by_hidden: tl.tensor,
    weight: tl.tensor,
    weight_scale: tl.tensor,
    by_gates: tl.tensor,
    carried: tl.tensor,
    by_cell: tl.tensor,
    batch: tl.tensor,
    steps: tl.tensor,
    UNITS: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
    TERMS: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    row_held = row < batch
    step = steps - 1
    while step >= 0:
        now = step * batch.to(tl.int64) + row
        for first in range(0, UNITS, BLOCK):
            unit = first + tl.arange(0, BLOCK)
            held = row_held[:, None] & (unit < UNITS)[None, :]
            own, at = row[:, None] * UNITS + unit[None, :], now[:, None] * UNITS + unit[None, :]
            of_hidden = tl.load(by_hidden + (row * steps + step)[:, None] * UNITS + unit[None, :], held, 0.0)
            of_hidden += tl.load(carried + own, held, 0.0)
            of_cell = tl.load(by_cell + own, held, 0.0) + of_hidden * tl.load(through + at, held, 0.0)
            gate = now[:, None] * 4 * UNITS + unit[None, :]
            for number in tl.static_range(3):
                slope = tl.load(slopes + gate + number * UNITS, held, 0.0)
                tl.store(by_gates + gate + number * UNITS, slope * of_cell, held)
            slope = tl.load(slopes + gate + 3 * UNITS, held, 0.0)
            tl.store(by_gates + gate + 3 * UNITS, slope * of_hidden, held)
            tl.store(by_cell + own, of_cell * tl.load(forget + at, held, 0.0), held)
        tl.debug_barrier()
        for first in range(0, UNITS, BLOCK):
            unit = first + tl.arange(0, BLOCK)
            sums = tl.zeros([ROWS, BLOCK], tl.float32)
            for start in range(0, 4 * UNITS, TERMS):
                k = start + tl.arange(0, TERMS)
                k_held = k < 4 * UNITS
                slope = tl.load(
                    by_gates + (now * 4 * UNITS)[:, None] + k[None, :], row_held[:, None] & k_held[None, :], 0.0
                )
                slope *= tl.load(weight_scale + k, k_held, 0.0)[None, :]
                w_held = k_held[:, None] & (unit < UNITS)[None, :]
                w = tl.load(weight + k[:, None] * UNITS + unit[None, :], w_held, 0).to(_FACTOR)
                # Codes are exact in bfloat16, and a slope in two of them keeps 16 bits.
                high = slope.to(tl.bfloat16)
                low = (slope - high.to(tl.float32)).to(tl.bfloat16)
                sums = tl.dot(high.to(_FACTOR), w, sums)
                sums = tl.dot(low.to(_FACTOR), w, sums)
            held = row_held[:, None] & (unit < UNITS)[None, :]
            tl.store(carried + row[:, None] * UNITS + unit[None, :], sums, held)
        tl.debug_barrier()
        step -= 1
