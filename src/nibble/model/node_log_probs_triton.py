"""`nibble.model.node_log_probs` in Triton: each pass reads the logits once, in their own type.

A program takes a node. Its logits go through registers in blocks, with the largest logit so far and the sum of
e^(logit - largest) (Milakov and Gimelshein, 2018, algorithm 3).
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from nibble.conventions import BLANK
from nibble.kernels.triton.launching import launch

_LARGEST_BLOCK = 2048
_BLANK = tl.constexpr(BLANK)


def forward(logits: Tensor, following: Tensor) -> tuple[Tensor, Tensor]:
    """log-probabilities (N, 2) and the logarithm of the softmax's denominator (N,), float32.

    Args:
        logits: contiguous, (N, V).
        following: the label that follows, (N,), contiguous.
    """
    count, vocabulary = logits.shape
    log_probs, total = (logits.new_empty(shape, dtype=torch.float32) for shape in ((count, 2), (count,)))
    if count:
        launch(_forward, count, logits, following, log_probs, total, **_sizes(vocabulary))
    return log_probs, total


def backward(logits: Tensor, following: Tensor, total: Tensor, slopes: Tensor) -> None:
    """Replace the logits by their gradient.

    Args:
        logits: as `forward` took them.
        following: likewise.
        total: as `forward` gave it.
        slopes: the gradient by the log-probabilities, float32 (N, 2), contiguous.
    """
    count, vocabulary = logits.shape
    if count:
        launch(_backward, count, logits, following, total, slopes, **_sizes(vocabulary))


def _sizes(vocabulary: int) -> dict[str, int]:
    block = min(triton.next_power_of_2(vocabulary), _LARGEST_BLOCK)
    return {"VOCABULARY": vocabulary, "BLOCK": block, "num_warps": min(max(block // 256, 1), 8)}


@triton.jit
def _forward(
    logits: tl.tensor,
    following: tl.tensor,
    log_probs: tl.tensor,
    total: tl.tensor,
    VOCABULARY: tl.constexpr,
    BLOCK: tl.constexpr,
):
    node = tl.program_id(0).to(tl.int64)
    logits += node * VOCABULARY
    largest, shift, sum_ = -float("inf"), 0.0, 0.0
    for start in range(0, VOCABULARY, BLOCK):
        label = start + tl.arange(0, BLOCK)
        x = tl.load(logits + label, label < VOCABULARY, -float("inf")).to(tl.float32)
        new_largest = tl.maximum(largest, tl.max(x, 0))
        new_shift = tl.where(new_largest == -float("inf"), 0.0, new_largest)  # -inf - -inf would be NaN
        sum_ = sum_ * tl.exp(shift - new_shift) + tl.sum(tl.exp(x - new_shift), 0)  # NaN stays NaN
        largest, shift = new_largest, new_shift
    blank = tl.load(logits + _BLANK).to(tl.float32)
    label = tl.load(logits + tl.load(following + node)).to(tl.float32)
    # (x - largest) - log(sum) rounds at the size of the result; largest + log(sum) would at that of the logits.
    tl.store(log_probs + 2 * node, (blank - largest) - tl.log(sum_))
    tl.store(log_probs + 2 * node + 1, (label - largest) - tl.log(sum_))
    tl.store(total + node, largest + tl.log(sum_))


@triton.jit
def _backward(
    logits: tl.tensor,
    following: tl.tensor,
    total: tl.tensor,
    slopes: tl.tensor,
    VOCABULARY: tl.constexpr,
    BLOCK: tl.constexpr,
):
    node = tl.program_id(0).to(tl.int64)
    logits += node * VOCABULARY
    next_label = tl.load(following + node)
    by_blank, by_label = tl.load(slopes + 2 * node), tl.load(slopes + 2 * node + 1)
    log_sum = tl.load(total + node)
    for start in range(0, VOCABULARY, BLOCK):
        label = start + tl.arange(0, BLOCK)
        held = label < VOCABULARY
        p = tl.exp(tl.load(logits + label, held, 0.0).to(tl.float32) - log_sum)
        gradient = p * (-by_blank - by_label)
        gradient += tl.where(label == _BLANK, by_blank, 0.0)
        gradient += tl.where(label == next_label, by_label, 0.0)
        tl.store(logits + label, gradient.to(logits.dtype.element_ty), held)
