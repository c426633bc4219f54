"""The lattice of a transducer: all ways to read T frames and emit U labels (Graves, 2012, sections 2.3 and 2.4).

At node (t, u), t frames are read and u labels emitted. Blank leads on to (t + 1, u), the label that follows to
(t, u + 1).

    alpha(t, u)  log of the summed probabilities of all paths from (0, 0) to the node; beta(t, u), from it to (T, U)
    loss         -beta(0, 0)
    occupation   of an edge: how probably a path takes it, e^(alpha + its log-probability + beta behind it + loss)

In float64: near a loss of 2000 nats float32 numbers are 0.0001 apart, and errors add up along a path.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from nibble.model.gpu_kernels import kernels

NEVER = -float("inf")


@torch.no_grad()
def transducer_lattice(log_probs: Tensor, lengths: Tensor, label_lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Losses (B,) in nats, and the occupation (B, T', U + 1, 2) of each edge, 0 where an utterance has none.

    The loss has minus the occupations as its gradient. It is infinite where no path has any probability; occupations
    are NaN there, as where the loss is NaN.

    Args:
        log_probs: of blank and of the label that follows, (B, T', U + 1, 2); where none follows, anything.
        lengths: frames of each utterance, at least 1, (B,).
        label_lengths: (B,)
    """
    if log_probs.is_cuda:
        found: tuple[Tensor, Tensor] = kernels("lattice_triton").transducer_lattice(log_probs, lengths, label_lengths)
        return found
    frames, positions = log_probs.shape[1:3]
    t, u = torch.arange(frames + 1, device=log_probs.device), torch.arange(positions, device=log_probs.device)
    t, end, last = t[:, None], lengths[:, None, None], label_lengths[:, None, None]
    is_blank, is_label = (t < end) & (u <= last), (t < end) & (u < last)
    # Behind the end of an utterance, one free path leads through the padding to the corner that all share.
    blank, label = F.pad(log_probs.double(), (0, 0, 0, 0, 0, 1)).unbind(3)
    blank = blank.masked_fill(~is_blank, NEVER).masked_fill_((t >= end) & (u == last), 0.0)
    label = label.masked_fill(~is_label, NEVER).masked_fill_((t == frames) & (u >= last), 0.0)
    # Seen from that corner, the edges that come into a node are those that leave it.
    into_blank = torch.cat((F.pad(blank, (0, 0, 1, -1), value=NEVER), blank.flip(1, 2)))
    into_label = torch.cat((F.pad(label, (1, -1), value=NEVER), label.flip(1, 2)))
    alpha, beta = path_sums(into_blank, into_label).chunk(2)
    beta = beta.flip(1, 2)
    loss = -beta[:, 0, 0]
    alpha = alpha + loss[:, None, None]
    by_blank = (alpha + blank + F.pad(beta, (0, 0, -1, 1))).exp_().masked_fill_(~is_blank, 0.0)
    by_label = (alpha + label + F.pad(beta, (-1, 1))).exp_().masked_fill_(~is_label, 0.0)
    return loss, torch.stack((by_blank, by_label), 3)[:, :-1]


def path_sums(blank: Tensor, label: Tensor) -> Tensor:
    """log of the summed weights of all paths from (0, 0) to each node: (N, T, P).

    The nodes of a diagonal t + u depend on those of the diagonal before alone, so they are found at once.

    Args:
        blank: log-weight of the edge into each node from (t - 1, u), (N, T, P).
        label: from (t, u - 1), (N, T, P).
    """
    blank, label = skewed(blank), skewed(label)
    diagonals, count, positions = blank.shape
    sums = blank.new_full((diagonals, count, positions + 1), NEVER)  # the first column stands left of the lattice
    sums[0, :, 1] = 0.0
    # views of all diagonals at once: one by one, they take as long as the sums
    here, before = sums[..., 1:].unbind(), sums[..., :-1].unbind()
    for d, (by_blank, by_label) in enumerate(zip(blank.unbind()[1:], label.unbind()[1:], strict=True)):
        torch.logaddexp(here[d] + by_blank, before[d] + by_label, out=here[d + 1])
    return straight(sums[:, :, 1:])


def skewed(x: Tensor) -> Tensor:
    """(N, T, P) -> (T + P - 1, N, P): node (t, u) comes to diagonal t + u; NEVER where a diagonal has no node."""
    count, frames, positions = x.shape
    rows = F.pad(x.transpose(1, 2), (0, positions), value=NEVER).flatten(1)
    return rows[:, :-positions].view(count, positions, frames + positions - 1).permute(2, 0, 1).contiguous()


def straight(x: Tensor) -> Tensor:
    """The inverse of `skewed`."""
    diagonals, count, positions = x.shape
    rows = F.pad(x.permute(1, 2, 0).flatten(1), (0, positions)).view(count, positions, diagonals + 1)
    return rows[:, :, : diagonals + 1 - positions].transpose(1, 2)
