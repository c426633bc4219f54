"""Joiner and transducer loss in one: the logits (B, T', U + 1, V) never exist as a whole.

Utterances go through the joiner in groups. Of the distribution p of a node the loss needs two probabilities, blank's
and that of the label that follows. The lattice says how probably a path takes either, b and l, and

    d loss / d logit_v = (b + l) p_v - b [v is blank] - l [v is that label]

The loss of an utterance depends on its own nodes alone. So gradients are found group by group in the forward pass, from
logits that are still there, and the backward pass multiplies them by what comes in. Nothing is computed twice, but in
an utterance with more nodes than a group may have: the logits of each of its parts are dropped, and computed again for
the gradient.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from nibble.model.joiner import Joiner
from nibble.model.lattice import transducer_lattice
from nibble.model.transducer import BLANK
from nibble.steady import steady_parameters

GROUP = {"cpu": 2**14, "cuda": 2**17}  # nodes whose logits are there together: 64 and 512 MB at 1024 labels
PART = {"cpu": 2**12, "cuda": 2**15}  # nodes that go through the joiner at once


@steady_parameters()  # what the joiner makes of its parameters serves all groups
def fused_transducer_loss(
    joiner: Joiner, encoded: Tensor, predicted: Tensor, encoded_lengths: Tensor, labels: Tensor, label_lengths: Tensor
) -> Tensor:
    """The sum over utterances of what `transducer_loss` finds in the joiner's logits, in nats: a scalar.

    Float32 whatever the autocast, or float64 for float64. The joiner follows the autocast, unless to float16.

    Args:
        joiner: gets some frames of a group of utterances at a time.
        encoded: (B, T', D)
        predicted: (B, U + 1, P)
        encoded_lengths: (B,)
        labels: (B, U)
        label_lengths: (B,)
    """
    kind = encoded.device.type
    if torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind) is torch.float16:
        # Gradients are found before the loss is scaled, so they would underflow.
        encoded, predicted = encoded.float(), predicted.float()
        with torch.autocast(kind, enabled=False):
            return fused_transducer_loss(joiner, encoded, predicted, encoded_lengths, labels, label_lengths)
    inputs = [joiner.project_encoder(encoded), joiner.project_predictor(predicted)]
    inputs += [parameter for parameter in joiner.output.parameters() if parameter.requires_grad]
    training = torch.is_grad_enabled() and any(x.requires_grad for x in inputs)
    encoded, predicted = (x.detach().requires_grad_(training) for x in inputs[:2])
    wide = _wide(encoded)
    following = F.pad(labels.long(), (0, 1), value=BLANK)
    loss = torch.zeros((), dtype=torch.float64, device=encoded.device)
    gradients: list[Tensor | None] = [None] * len(inputs)
    for rows, frames, positions in _groups(encoded_lengths.tolist(), label_lengths.tolist(), GROUP[kind]):
        with torch.set_grad_enabled(training):
            log_probs = _log_probs(
                joiner, encoded[rows, :frames], predicted[rows, :positions], following[rows, :positions]
            )
        losses, occupation = transducer_lattice(log_probs, encoded_lengths[rows], label_lengths[rows])
        loss += losses.sum()
        if training:
            with torch.autocast(kind, enabled=False):  # backward passes choose their types themselves
                slopes = torch.autograd.grad(
                    log_probs, (encoded, predicted, *inputs[2:]), -occupation.to(wide), allow_unused=True
                )
            gradients = [_sum(gradient, slope) for gradient, slope in zip(gradients, slopes, strict=True)]
    loss = loss.to(wide)
    if not training:
        return loss
    with_gradients: Tensor = _WithGradients.apply(loss, gradients, *inputs)
    return with_gradients


def _groups(frames: list[int], labels: list[int], most: int) -> list[tuple[list[int], int, int]]:
    """Utterances of similar length, with the frames and positions of the largest.

    Padded to those, a group has at most `most` nodes, unless it is a single utterance.
    """
    groups: list[tuple[list[int], int, int]] = []
    for row in sorted(range(len(frames)), key=lambda row: frames[row]):
        rows, _, positions = groups[-1] if groups else ([], 0, 0)
        joined = [*rows, row], frames[row], max(positions, labels[row] + 1)
        if groups and len(joined[0]) * joined[1] * joined[2] <= most:
            groups[-1] = joined
        else:
            groups.append(([row], frames[row], labels[row] + 1))
    return groups


def _log_probs(joiner: Joiner, encoded: Tensor, predicted: Tensor, following: Tensor) -> Tensor:
    """Log-probabilities (G, T', U + 1, 2) of blank and of the label that follows, at each node of a group.

    Args:
        joiner: of projections.
        encoded: projected, (G, T', J).
        predicted: projected, (G, U + 1, J).
        following: labels, (G, U + 1).
    """
    kind, count = encoded.device.type, following.numel()
    parts = encoded.split(max(1, PART[kind] // count), 1)
    if count * encoded.size(1) <= GROUP[kind]:
        return torch.cat([_joined(joiner, part, predicted, following) for part in parts], 1)
    return torch.cat(
        [checkpoint(_joined, joiner, part, predicted, following, use_reentrant=False) for part in parts], 1
    )


def _joined(joiner: Joiner, encoded: Tensor, predicted: Tensor, following: Tensor) -> Tensor:
    logits = joiner.combine(encoded.unsqueeze(2), predicted.unsqueeze(1))
    log_probs: Tensor = _TwoLogProbs.apply(logits, following[:, None, :, None].expand(*logits.shape[:3], 1))
    return log_probs


class _TwoLogProbs(torch.autograd.Function):
    """Logits (..., V) -> log-probabilities of blank and of the label that follows, (..., 2).

    Float32 logits, the largest tensor, become probabilities and then their gradient in place: nothing else reads them.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, following: Tensor) -> Tensor:
        p = logits.detach().to(_wide(logits))
        largest = p.amax(-1, keepdim=True)
        two = torch.cat((p[..., BLANK : BLANK + 1], p.gather(-1, following)), -1)
        torch.softmax(p, -1, out=p)
        total = largest - p.amax(-1, keepdim=True).log()  # log of the sum of e^logit, of which the largest has its p
        ctx.save_for_backward(p, following)
        ctx.dtype = logits.dtype
        return two - total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slopes: Tensor) -> tuple[Tensor, None]:
        p, following = ctx.saved_tensors
        by_blank, by_label = slopes.split(1, -1)
        gradient = p.mul_(-by_blank - by_label)
        gradient[..., BLANK : BLANK + 1] += by_blank
        return gradient.scatter_add_(-1, following, by_label).to(ctx.dtype), None


class _WithGradients(torch.autograd.Function):
    """A loss whose gradients by `inputs` are known; None for an input that it does not depend on."""

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
    new = new.to(_wide(new))
    return new if total is None else total.add_(new)


def _wide(x: Tensor) -> torch.dtype:
    """float32, or float64 for float64."""
    return torch.promote_types(x.dtype, torch.float32)
