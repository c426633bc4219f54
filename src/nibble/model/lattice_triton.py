"""`nibble.model.lattice.path_sums` as one Triton kernel: a program a lattice, one frame after the other.

The sums of a frame are a first-order recurrence along its positions,

    s(u) = log(e^(s(u - 1) + label(u)) + e^(s_before(u) + blank(u)))

whose steps compose associatively, so a parallel scan finds all of them (Blelloch, 1990, section 1.4).
"""

import torch
import triton
import triton.language as tl
from torch import Tensor


def path_sums(blank: Tensor, label: Tensor) -> Tensor:
    """As `nibble.model.lattice.path_sums`; blank and label are float64 (N, T, P)."""
    blank, label = blank.contiguous(), label.contiguous()
    sums = torch.empty_like(blank)
    count, frames, positions = blank.shape
    block = triton.next_power_of_2(positions)
    warps = min(max(block // 64, 1), 8)
    _path_sums[(count,)](blank, label, sums, frames, positions, BLOCK=block, num_warps=warps)
    return sums


@triton.jit
def _path_sums(
    blank: tl.tensor, label: tl.tensor, sums: tl.tensor, frames: tl.tensor, positions: tl.tensor, BLOCK: tl.constexpr
):
    u = tl.arange(0, BLOCK)
    held = u < positions
    at = tl.program_id(0).to(tl.int64) * frames * positions + u
    from_before = tl.where(u == 0, 0.0, tl.full([BLOCK], -float("inf"), tl.float64))  # paths begin at (0, 0)
    t = 0
    while t < frames:  # not a range: the interpreter of Triton 3.6 makes no integer of `frames` with NumPy 2.4
        steps = tl.load(label + at, held, -float("inf"))
        _, reached = tl.associative_scan((steps, from_before), 0, _two_steps)
        tl.store(sums + at, reached, held)
        at += positions
        t += 1
        from_before = reached + tl.load(blank + at, held & (t < frames), -float("inf"))


@triton.jit
def _two_steps(weight: tl.tensor, reached: tl.tensor, later_weight: tl.tensor, later_reached: tl.tensor):
    return weight + later_weight, _log_add(reached + later_weight, later_reached)


@triton.jit
def _log_add(a: tl.tensor, b: tl.tensor):
    high = tl.maximum(a, b, propagate_nan=tl.PropagateNan.ALL)
    low = tl.minimum(a, b, propagate_nan=tl.PropagateNan.ALL)
    return tl.where(low == -float("inf"), high, high + tl.log(1.0 + tl.exp(low - high)))
