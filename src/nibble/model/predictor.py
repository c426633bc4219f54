"""The label side of the transducer: what has been said so far (Graves, 2012, section 2.2).

Both predictors map labels (B, U) to (B, U, P) and can go one label at a time. Label 0 is blank, and stands for
"nothing said yet". A decoding state is a tuple of tensors whose first dimension is B, so beams reorder by index_select.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nibble.model.options import ModelConfig, Predictor

State = tuple[Tensor, ...]


class LstmPredictor(nn.Module):
    """Embedding, then one LSTM layer."""

    def __init__(self, vocabulary_size: int, embedding_width: int, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary_size, embedding_width)
        self.lstm = nn.LSTM(embedding_width, width, batch_first=True)

    def forward(self, labels: Tensor) -> Tensor:
        """labels (B, U) -> (B, U, P)."""
        out, _ = self.lstm(self.embedding(labels))
        return out

    def start(self, batch: int, device: torch.device) -> State:
        """The state before any label: hidden (B, P), cell (B, P)."""
        zeros = torch.zeros(batch, self.lstm.hidden_size, device=device)
        return zeros, zeros

    def step(self, label: Tensor, state: State) -> tuple[Tensor, State]:
        """label (B,) -> (B, P) and the new state."""
        hidden, cell = (part.unsqueeze(0) for part in state)
        out, (hidden, cell) = self.lstm(self.embedding(label.unsqueeze(1)), (hidden, cell))
        return out[:, 0], (hidden[0], cell[0])


class StatelessPredictor(nn.Module):
    """The last `context` labels, embedded side by side, then a projection (Ghodsi et al., 2020)."""

    def __init__(self, vocabulary_size: int, embedding_width: int, width: int, context: int) -> None:
        super().__init__()
        self.context = context
        self.embedding = nn.Embedding(vocabulary_size, embedding_width)
        self.projection = nn.Linear(context * embedding_width, width)

    def forward(self, labels: Tensor) -> Tensor:
        """labels (B, U) -> (B, U, P)."""
        labels = F.pad(labels, (self.context - 1, 0))
        return self._project(labels.unfold(1, self.context, 1))

    def start(self, batch: int, device: torch.device) -> State:
        """The state before any label: the last labels (B, context), all blank."""
        return (torch.zeros(batch, self.context, dtype=torch.long, device=device),)

    def step(self, label: Tensor, state: State) -> tuple[Tensor, State]:
        """label (B,) -> (B, P) and the new state."""
        labels = torch.cat((state[0][:, 1:], label.unsqueeze(1)), dim=1)
        return self._project(labels), (labels,)

    def _project(self, contexts: Tensor) -> Tensor:
        """contexts (..., context) -> (..., P)."""
        return F.relu(self.projection(self.embedding(contexts).flatten(-2)))


def make_predictor(config: ModelConfig, vocabulary_size: int) -> LstmPredictor | StatelessPredictor:
    """The predictor of `config`; labels are embedded at the encoder's width."""
    if config.predictor is Predictor.lstm:
        return LstmPredictor(vocabulary_size, config.width, config.predictor_width)
    return StatelessPredictor(vocabulary_size, config.width, config.predictor_width, config.context)
