"""`nibble.model.lattice.transducer_lattice` in two Triton kernels, which read the log-probabilities as they are.

The sums of a frame are a first-order recurrence along its label positions,

    alpha(t, u) = log(e^(alpha(t, u - 1) + label(t, u - 1)) + e^(alpha(t - 1, u) + blank(t - 1, u)))

whose steps compose associatively, so a parallel scan finds all of them (Blelloch, 1990, section 1.4). beta is the same
recurrence seen from the end: a program takes one of the two, of one utterance, frame after frame.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from nibble.kernels.triton.launching import launch


def transducer_lattice(log_probs: Tensor, lengths: Tensor, label_lengths: Tensor) -> tuple[Tensor, Tensor]:
    """As `nibble.model.lattice.transducer_lattice`."""
    count, frames, positions = log_probs.shape[:3]
    log_probs, lengths, label_lengths = (x.contiguous() for x in (log_probs, lengths, label_lengths))
    sums = log_probs.new_empty((2, count, frames, positions), dtype=torch.float64)  # alpha and beta
    losses = log_probs.new_empty(count, dtype=torch.float64)
    occupation = torch.empty_like(log_probs, dtype=torch.float64)
    block = triton.next_power_of_2(positions)
    warps = min(max(block // 64, 1), 8)
    sizes = lengths, label_lengths, frames, positions
    launch(_sums, (count, 2), log_probs, sums, losses, *sizes, BLOCK=block, num_warps=warps)
    launch(_occupation, (count, frames), log_probs, sums, losses, occupation, *sizes, BLOCK=block, num_warps=warps)
    return losses, occupation


@triton.jit(do_not_specialize=["frames", "positions"])
def _sums(
    log_probs: tl.tensor,
    sums: tl.tensor,
    losses: tl.tensor,
    lengths: tl.tensor,
    label_lengths: tl.tensor,
    frames: tl.tensor,
    positions: tl.tensor,
    BLOCK: tl.constexpr,
):
    row, backwards = tl.program_id(0).to(tl.int64), tl.program_id(1)
    length, last = tl.load(lengths + row), tl.load(label_lengths + row)
    log_probs += 2 * row * frames * positions
    sums += (backwards * tl.num_programs(0).to(tl.int64) + row) * frames * positions
    order = tl.arange(0, BLOCK)  # from the position where paths begin
    u = tl.where(backwards == 1, last - order, order)
    held = order <= last
    # Of the edge that leads on to a position in a frame: alpha's comes from the position before, beta's from its own.
    of_label = u - 1 + backwards
    is_label = held & (order > 0)
    reached = tl.where(order == 0, 0.0, tl.full([BLOCK], -float("inf"), tl.float64))
    step = 0
    while step < length:  # not a range: the interpreter of Triton 3.6 makes no integer of `length` with NumPy 2.4
        frame = tl.where(backwards == 1, length - 1 - step, step)
        before = frame - 1 + backwards  # whose blanks lead to this frame, or beta's from it
        blank = tl.load(log_probs + 2 * (before * positions + u), held & (before >= 0), 0.0).to(tl.float64)
        label = tl.load(log_probs + 2 * (frame * positions + of_label) + 1, is_label, -float("inf")).to(tl.float64)
        _, reached = tl.associative_scan((label, reached + blank), 0, _two_steps)
        tl.store(sums + frame * positions + u, reached, held)
        step += 1
    if backwards == 1:
        tl.store(losses + row, -tl.sum(tl.where(order == last, reached, 0.0), 0))


@triton.jit(do_not_specialize=["frames", "positions"])
def _occupation(
    log_probs: tl.tensor,
    sums: tl.tensor,
    losses: tl.tensor,
    occupation: tl.tensor,
    lengths: tl.tensor,
    label_lengths: tl.tensor,
    frames: tl.tensor,
    positions: tl.tensor,
    BLOCK: tl.constexpr,
):
    row, frame = tl.program_id(0).to(tl.int64), tl.program_id(1)
    length, last = tl.load(lengths + row), tl.load(label_lengths + row)
    u = tl.arange(0, BLOCK)
    first = (row * frames + frame) * positions
    is_blank, is_label = (frame < length) & (u <= last), (frame < length) & (u < last)
    alpha = tl.load(sums + first + u, is_blank, 0.0) + tl.load(losses + row)
    beta = sums + tl.num_programs(0).to(tl.int64) * frames * positions + first
    end = tl.where((frame == length - 1) & (u == last), 0.0, tl.full([BLOCK], -float("inf"), tl.float64))
    after_blank = tl.load(beta + positions + u, is_blank & (frame + 1 < length), 0.0)
    after_blank = tl.where(frame + 1 < length, after_blank, end)
    after_label = tl.load(beta + u + 1, is_label, 0.0)
    blank = tl.load(log_probs + 2 * (first + u), is_blank, 0.0).to(tl.float64)
    label = tl.load(log_probs + 2 * (first + u) + 1, is_label, 0.0).to(tl.float64)
    by_blank = tl.where(is_blank, tl.exp(alpha + blank + after_blank), 0.0)
    by_label = tl.where(is_label, tl.exp(alpha + label + after_label), 0.0)
    held = u < positions
    tl.store(occupation + 2 * (first + u), by_blank, held)
    tl.store(occupation + 2 * (first + u) + 1, by_label, held)


@triton.jit
def _two_steps(weight: tl.tensor, reached: tl.tensor, later_weight: tl.tensor, later_reached: tl.tensor):
    return weight + later_weight, _log_add(reached + later_weight, later_reached)


@triton.jit
def _log_add(a: tl.tensor, b: tl.tensor):
    high = tl.maximum(a, b, propagate_nan=tl.PropagateNan.ALL)
    low = tl.minimum(a, b, propagate_nan=tl.PropagateNan.ALL)
    return tl.where(low == -float("inf"), high, high + tl.log(1.0 + tl.exp(low - high)))
