"""Joiner and transducer loss in one: the logits (B, T', U + 1, V) never exist as a whole.

Utterances go through the joiner in groups. Of the distribution p of a node the loss needs two probabilities, blank's
and that of the label that follows. The lattice says how probably a path takes either, b and l, and

    d loss / d logit_v = (b + l) p_v - b [v is blank] - l [v is that label]

With durations (`nibble.model.tdt_lattice`), it needs the probability of each of those too.

The loss of an utterance depends on its own nodes alone. So gradients are found group by group in the forward pass, from
logits that are still there, and the backward pass multiplies them by what comes in. Nothing is computed twice, but in
an utterance with more nodes than a group may have: the logits of each of its parts are dropped, and computed again for
the gradient.
"""

from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from nibble.conventions import BLANK
from nibble.model.joiner import Joiner
from nibble.model.lattice import transducer_lattice
from nibble.model.node_log_probs import node_log_probs, wide_type
from nibble.model.targets import Targets
from nibble.model.tdt_lattice import tdt_lattice
from nibble.parameter_cache import constant_parameters

GROUP, PART = 2**14, 2**12  # on a CPU: nodes whose logits are there together, 64 MB at 1024 labels; in the joiner
MOST_IN_PART = 2**18  # nodes in the joiner at once on a GPU


@constant_parameters()  # the joiner quantizes its weights once for all groups
def fused_transducer_loss(joiner: Joiner, encoded: Tensor, predicted: Tensor, targets: Targets) -> Tensor:
    """The sum of `transducer_loss` over utterances, computed without holding all logits, in nats: a scalar.

    Of a joiner with durations it is the loss of `tdt_lattice`, with sigma = 0 in the paper's terms.

    Float32 whatever the autocast, or float64 for float64. The joiner follows the autocast, unless to float16.

    Args:
        joiner: gets some frames of a group of utterances at a time.
        encoded: (B, T', D)
        predicted: (B, U + 1, P)
        targets: of the batch.
    """
    encoded_lengths, labels, label_lengths, counts = targets
    if counts is None:
        counts = encoded_lengths.tolist(), label_lengths.tolist()
    kind = encoded.device.type
    if torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind) is torch.float16:
        # Gradients are found before the loss is scaled, so they would underflow.
        with torch.autocast(kind, enabled=False):
            return fused_transducer_loss(joiner, encoded.float(), predicted.float(), targets._replace(counts=counts))
    inputs = [joiner.project_encoder(encoded), joiner.project_predictor(predicted)]
    inputs += [parameter for parameter in joiner.output.parameters() if parameter.requires_grad]
    training = torch.is_grad_enabled() and any(x.requires_grad for x in inputs)
    encoded, predicted = (x.detach() for x in inputs[:2])
    wide = wide_type(encoded)
    following = F.pad(labels.long(), (0, 1), value=BLANK)
    loss = torch.zeros((), dtype=torch.float64, device=encoded.device)
    gradients: list[Tensor | None] = [None] * len(inputs)
    if training:
        gradients[:2] = (torch.zeros_like(x, dtype=wide) for x in (encoded, predicted))
    lattice = tdt_lattice if joiner.durations else transducer_lattice
    order = encoded_lengths.argsort(stable=True)  # on the device; `_groups` sorts the same numbers
    most, part = _nodes_at_once(encoded.device, joiner.vocabulary_size)
    for group, frames, positions in _groups(*counts, most):
        rows = order[group]
        sides = encoded[rows, :frames].requires_grad_(training), predicted[rows, :positions].requires_grad_(training)
        with torch.set_grad_enabled(training):
            log_probs = _log_probs(joiner, *sides, following[rows, :positions], most, part)
        losses, occupation = lattice(log_probs, encoded_lengths[rows], label_lengths[rows])
        loss += losses.sum()
        if training:
            with torch.autocast(kind, enabled=False):  # backward passes choose their types themselves
                slopes = torch.autograd.grad(log_probs, (*sides, *inputs[2:]), -occupation.to(wide), allow_unused=True)
            for gradient, slope, size in zip(gradients[:2], slopes[:2], (frames, positions), strict=True):
                assert gradient is not None
                gradient[rows, :size] = slope.to(wide)
            gradients[2:] = (_sum(total, slope) for total, slope in zip(gradients[2:], slopes[2:], strict=True))
    loss = loss.to(wide)
    if not training:
        return loss
    with_gradients: Tensor = _WithGradients.apply(loss, gradients, *inputs)
    return with_gradients


def _nodes_at_once(device: torch.device, vocabulary_size: int) -> tuple[int, int]:
    """How many nodes have their logits in memory together, and how many go through the joiner at once."""
    if device.type == "cpu":
        return GROUP, PART
    most = _nodes_of_gpu(device, vocabulary_size)
    return most, min(most, MOST_IN_PART)


@cache
def _nodes_of_gpu(device: torch.device, vocabulary_size: int) -> int:
    """So many nodes that their logits take a quarter of the memory that is free when it is first asked: a power of two.

    Asked once in a process, so that a batch gives the same sums whenever it comes.
    """
    free_bytes, _ = torch.cuda.mem_get_info(device)
    nodes = free_bytes // 4 // (8 * vocabulary_size)  # a logit in float32, and where it is made or used
    return 2 ** (min(max(nodes, 2**15), 2**22).bit_length() - 1)


def _groups(frames: list[int], labels: list[int], most: int) -> list[tuple[slice, int, int]]:
    """Utterances of similar length, with the frames and positions of the largest.

    Padded to those, a group has at most `most` nodes, unless it is a single utterance.

    Returns:
        of each group: its part of the utterances in order of their frames, frames, positions.
    """
    groups: list[tuple[slice, int, int]] = []
    for place, row in enumerate(sorted(range(len(frames)), key=frames.__getitem__)):
        group, _, positions = groups[-1] if groups else (slice(0, 0), 0, 0)
        positions = max(positions, labels[row] + 1)
        if groups and (place + 1 - group.start) * frames[row] * positions <= most:
            groups[-1] = slice(group.start, place + 1), frames[row], positions
        else:
            groups.append((slice(place, place + 1), frames[row], labels[row] + 1))
    return groups


def _log_probs(joiner: Joiner, encoded: Tensor, predicted: Tensor, following: Tensor, most: int, part: int) -> Tensor:
    """Log-probabilities of blank and of the label that follows, and of durations, at each node of a group.

    Args:
        joiner: of projections.
        encoded: projected, (G, T', J).
        predicted: projected, (G, U + 1, J).
        following: labels, (G, U + 1).
        most: nodes whose logits may be in memory together.
        part: nodes that go through the joiner at once.

    Returns:
        (G, T', U + 1, 2 + E)
    """
    count = following.numel()
    parts = encoded.split(max(1, part // count), 1)
    if count * encoded.size(1) <= most:
        return torch.cat([_joined(joiner, part, predicted, following) for part in parts], 1)
    return torch.cat(
        [checkpoint(_joined, joiner, part, predicted, following, use_reentrant=False) for part in parts], 1
    )


def _joined(joiner: Joiner, encoded: Tensor, predicted: Tensor, following: Tensor) -> Tensor:
    logits = joiner.combine(encoded.unsqueeze(2), predicted.unsqueeze(1))
    following = following.unsqueeze(1).expand(logits.shape[:3])
    if not joiner.durations:
        return node_log_probs(logits, following)
    labels, durations = logits.split((joiner.vocabulary_size, joiner.durations), -1)
    lasting = durations.to(wide_type(durations)).log_softmax(-1)
    return torch.cat((node_log_probs(labels.contiguous(), following), lasting), -1)


class _WithGradients(torch.autograd.Function):
    """A loss with known gradients by `inputs`; None for an input that it does not depend on."""

    @staticmethod
    def forward(ctx: Any, loss: Tensor, gradients: list[Tensor | None], *inputs: Tensor) -> Tensor:
        ctx.save_for_backward(*gradients)
        ctx.types = [x.dtype for x in inputs]
        return loss.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        pairs = zip(ctx.saved_tensors, ctx.types, strict=True)
        return None, None, *(None if x is None else (x * slope).to(dtype) for x, dtype in pairs)


def _sum(total: Tensor | None, new: Tensor | None) -> Tensor | None:
    if new is None:
        return total
    new = new.to(wide_type(new))
    return new if total is None else total.add_(new)
