"""Connectionist temporal classification (Graves et al., 2006) in the place of predictor and joiner.

A CTC network has no predictor: each frame has one distribution over labels, whatever was said before. The most probable
label of each frame makes the best path; of equal labels in successive frames only the first counts, and of blanks none.
The searches for transducers serve it as they are: the head tells them at each frame what is left to say.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nibble.conventions import BLANK
from nibble.model.decoding import MAX_REPEATS
from nibble.model.predictor import State

_NEVER = -1e30  # a logit without probability; finite, since 0 x infinity is NaN


class LabelCount(nn.Module):
    """A predictor that only counts labels, so that a search says each once: labels (B, U) -> (B, U, 1)."""

    def forward(self, labels: Tensor) -> Tensor:
        """labels (B, U) -> how many there are up to each, (B, U, 1)."""
        return (labels != BLANK).cumsum(1).unsqueeze(2).float()

    def start(self, batch: int, device: torch.device) -> State:
        """The state before any label: a count (B, 1)."""
        return (torch.zeros(batch, 1, device=device),)

    def step(self, label: Tensor, state: State) -> tuple[Tensor, State]:
        """label (B,) -> (B, 1) and the new state."""
        count = state[0] + (label != BLANK).unsqueeze(1)
        return count, (count.clone(),)


class CtcHead(nn.Module):
    """Linear on encoded frames: `logits` (B, T', V) for the loss, and the best path for a search.

    `project_encoder` and `combine` are those of a `Joiner`. A projected frame holds its label of the best path, and
    how many labels the path has by then. A hypothesis with fewer labels says that label, and one with as many says
    blank, each with certainty: a score is the log-probability of nothing, 0.
    """

    def __init__(self, width: int, vocabulary_size: int) -> None:
        super().__init__()
        self.vocabulary_size, self.durations = vocabulary_size, 0
        self.output = nn.Linear(width, vocabulary_size)

    def logits(self, encoded: Tensor) -> Tensor:
        """(B, T', D) -> (B, T', V)."""
        scores: Tensor = self.output(encoded)
        return scores

    def project_encoder(self, encoded: Tensor) -> Tensor:
        """(B, T', D) -> (B, T', 2): the label of the best path, and how many labels it has up to there."""
        best = self.logits(encoded).argmax(-1)
        new = (best != BLANK) & (best != F.pad(best, (1, 0), value=BLANK)[:, :-1])
        return torch.stack((best, _countable(best, new).cumsum(1)), dim=2).float()

    def project_predictor(self, predicted: Tensor) -> Tensor:
        """A count, unchanged."""
        return predicted

    def combine(self, frame: Tensor, count: Tensor) -> Tensor:
        """Projected frames (..., 2) and counts (..., 1) -> logits (..., V) of what is left to say."""
        label, said = frame[..., 0], frame[..., 1]
        label = label.where(said > count[..., 0], BLANK).long()
        logits = torch.full((*label.shape, self.vocabulary_size), _NEVER, device=frame.device)
        return logits.scatter(-1, label.unsqueeze(-1), 0.0)

    def forward(self, encoded: Tensor, predicted: Tensor) -> Tensor:
        """encoded (B, T', D) -> logits (B, T', 1, V), the same at all label positions."""
        del predicted
        return self.logits(encoded).unsqueeze(2)


def _countable(best: Tensor, new: Tensor) -> Tensor:
    """Labels (B, T'), and whether each begins (B, T') -> the same without those beyond `MAX_REPEATS` in a row.

    Searches leave those out, and would look for them again in later frames.
    """
    time = torch.arange(best.size(1), device=best.device)
    number = new.cumsum(1)
    last = F.pad(torch.where(new, time, 0).cummax(1).values, (1, 0))[:, :-1]  # where the label before this one began
    other = new & (best != best.gather(1, last))
    in_a_row = number - torch.where(other, number - 1, 0).cummax(1).values
    return new & (in_a_row <= MAX_REPEATS)
