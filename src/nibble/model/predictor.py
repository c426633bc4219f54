"""The label side of the transducer: it sees the labels so far (Graves, 2012, section 2.2).

Both predictors map labels (B, U) to (B, U, P) and can go one label at a time. Label 0 is blank, and stands for
"nothing said yet". A decoding state is a tuple of tensors whose first dimension is B, so beams reorder by index_select.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nibble.model.options import ModelConfig, Predictor

State = tuple[Tensor, ...]


class LstmPredictor(nn.Module):
    """Embedding, then LSTM layers, each with the output width P."""

    def __init__(self, vocabulary_size: int, embedding_width: int, width: int, layers: int = 1) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary_size, embedding_width)
        self.lstm = nn.LSTM(embedding_width, width, batch_first=True)
        self.upper = nn.ModuleList(nn.LSTM(width, width, batch_first=True) for _ in range(layers - 1))

    @property
    def layers(self) -> list[nn.LSTM]:
        """From the embedding upwards."""
        return [self.lstm, *self.upper]

    def forward(self, labels: Tensor) -> Tensor:
        """labels (B, U) -> (B, U, P)."""
        x = self.embedding(labels)
        for lstm in self.layers:
            x, _ = lstm(x)
        return x

    def start(self, batch: int, device: torch.device) -> State:
        """The state before any label: hidden and cell of each layer, (B, P) each."""
        zeros = torch.zeros(batch, self.lstm.hidden_size, device=device)
        return (zeros, zeros) * len(self.layers)

    def step(self, label: Tensor, state: State) -> tuple[Tensor, State]:
        """label (B,) -> (B, P) and the new state."""
        x, new = self.embedding(label.unsqueeze(1)), []
        for number, lstm in enumerate(self.layers):
            hidden, cell = (part.unsqueeze(0) for part in state[2 * number : 2 * number + 2])
            x, (hidden, cell) = lstm(x, (hidden, cell))
            new += [hidden[0], cell[0]]
        return x[:, 0], tuple(new)


class StatelessPredictor(nn.Module):
    """The last `context` labels, embedded side by side, then a projection and ReLU (Ghodsi et al., 2020).

    A linear one, as icefall's `transducer_stateless`, has no ReLU.
    """

    def __init__(
        self, vocabulary_size: int, embedding_width: int, width: int, context: int, linear: bool = False
    ) -> None:
        super().__init__()
        self.linear = linear
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
        projected: Tensor = self.projection(self.embedding(contexts).flatten(-2))
        return projected if self.linear else F.relu(projected)


def make_predictor(config: ModelConfig, vocabulary_size: int) -> LstmPredictor | StatelessPredictor:
    """The predictor that the options ask for."""
    sizes = vocabulary_size, config.embedding_width or config.width, config.predictor_width
    if config.predictor is Predictor.lstm:
        return LstmPredictor(*sizes, config.predictor_layers)
    return StatelessPredictor(*sizes, config.context, linear=config.predictor is Predictor.stateless_linear)
