"""The lattice of a token-and-duration transducer (TDT; Xu et al., 2023, "Efficient Sequence Transduction by Jointly
Predicting Tokens and Durations", section 3).

Nodes are those of `nibble.model.lattice`. Each label, and each blank, lasts for 0 to E - 1 frames, with a probability
of its own: a blank of d frames leads from (t, u) to (t + d, u), and the label that follows to (t + d, u + 1). A blank
lasts at least one frame. A path ends with a blank that lasts exactly to the end, so a label ends before it.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from nibble.model.lattice import NEVER, skewed, straight


@torch.no_grad()
def tdt_lattice(log_probs: Tensor, lengths: Tensor, label_lengths: Tensor) -> tuple[Tensor, Tensor]:
    """The loss (B,) of each utterance, and minus its gradient by `log_probs`, in float64.

    The gradient is the expected number of times that a path takes a blank, the label, or a duration at each node:
    (B, T', U + 1, 2 + E), 0 where an utterance has no node. The loss is infinite where no path has any probability, as
    where all durations are longer than the utterance; the gradient is NaN there.

    Args:
        log_probs: of blank, of the label that follows, and of the durations 0 to E - 1, (B, T', U + 1, 2 + E); where
            no label follows, its own is not read.
        lengths: frames of each utterance, at least 1, (B,).
        label_lengths: (B,)
    """
    frames, positions, columns = log_probs.shape[1:]
    durations = torch.arange(columns - 2, device=log_probs.device)
    t = torch.arange(frames + 1, device=log_probs.device)[:, None, None]
    u = torch.arange(positions, device=log_probs.device)[:, None]
    end, last = lengths[:, None, None, None], label_lengths[:, None, None, None]
    is_blank = (t < end) & (u <= last) & (durations > 0) & (t + durations <= end)
    is_label = (t < end) & (u < last) & (t + durations < end)
    # Weights of the edges that leave each node, (B, T' + 1, U + 1, E).
    blank, label, lasting = F.pad(log_probs.double(), (0, 0, 0, 0, 0, 1)).split((1, 1, columns - 2), 3)
    blank, label = (blank + lasting).masked_fill_(~is_blank, NEVER), (label + lasting).masked_fill_(~is_label, NEVER)
    # Behind the end of an utterance, one free path leads through the padding to the corner that all share.
    blank[..., 1:2].masked_fill_((t >= end) & (u == last), 0.0)
    label[..., 0:1].masked_fill_((t == frames) & (u >= last), 0.0)
    # Seen from that corner, the edges that come into a node are those that leave it.
    into_blank = torch.cat((_behind(blank, 0), blank.flip(1, 2)))
    into_label = torch.cat((_behind(label, 1), label.flip(1, 2)))
    alpha, beta = _path_sums(into_blank, into_label).chunk(2)
    beta = beta.flip(1, 2)
    loss = -beta[:, 0, 0]
    before = (alpha + loss[:, None, None]).unsqueeze(3)
    by_blank = (before + blank + _ahead(beta, 0, columns - 2)).exp_().masked_fill_(~is_blank, 0.0)
    by_label = (before + label + _ahead(beta, 1, columns - 2)).exp_().masked_fill_(~is_label, 0.0)
    taken = torch.cat((by_blank.sum(3, keepdim=True), by_label.sum(3, keepdim=True), by_blank + by_label), 3)
    return loss, taken[:, :-1]


def _behind(edges: Tensor, labels: int) -> Tensor:
    """Weights at the nodes where edges begin (B, T, P, E) -> at those where they end, `labels` positions further."""
    return torch.stack(
        [
            F.pad(edge, (labels, -labels, *_moved(edge, duration)), value=NEVER)
            for duration, edge in enumerate(edges.unbind(3))
        ],
        3,
    )


def _ahead(sums: Tensor, labels: int, durations: int) -> Tensor:
    """Sums at nodes (B, T, P) -> at the node where each edge of a node ends, (B, T, P, E)."""
    return torch.stack(
        [
            F.pad(sums, (-labels, labels, *(-frames for frames in _moved(sums, duration))), value=NEVER)
            for duration in range(durations)
        ],
        3,
    )


def _moved(x: Tensor, duration: int) -> tuple[int, int]:
    """The padding that moves (B, T, P) by a number of frames, all of them at most."""
    frames = min(duration, x.size(1))
    return frames, -frames


def _path_sums(blank: Tensor, label: Tensor) -> Tensor:
    """log of the summed weights of all paths from (0, 0) to each node: (N, T, P).

    The nodes of a diagonal t + u depend on those of the E diagonals before alone, so they are found at once.

    Args:
        blank: log-weight of the edge into each node from (t - d, u), (N, T, P, E); none at d = 0.
        label: from (t - d, u - 1), (N, T, P, E).
    """
    count, _, positions, durations = blank.shape
    # The longest first: of the diagonals before, the farthest stands first.
    blank, label = (
        skewed(x.permute(3, 0, 1, 2).flip(0).flatten(0, 1)).unflatten(1, (durations, count)) for x in (blank, label)
    )
    diagonals = len(blank)
    sums = blank.new_full((durations + diagonals, count, positions + 1), NEVER)  # with a column left of the lattice
    sums[durations, :, 1] = 0.0
    for d in range(1, diagonals):
        window = sums[d : d + durations]
        ways = torch.cat((window[1:, :, 1:] + blank[d, :-1], window[:, :, :-1] + label[d]))
        torch.logsumexp(ways, 0, out=sums[d + durations, :, 1:])
    return straight(sums[durations:, :, 1:])
