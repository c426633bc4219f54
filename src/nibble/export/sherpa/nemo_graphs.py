"""The three graphs that sherpa-onnx runs as a NeMo transducer, for models that hear NeMo's features.

encoder  audio_signal (N, F, T), length (N,) -> outputs (N, J, T'), encoded_lengths (N,)
decoder  targets (N, 1), target_length (N,), states (L, N, P), cells (L, N, P)
         -> outputs (N, J, 1), prednet_lengths (N,), next_states, next_cells
joiner   encoder_outputs (N, J, 1), decoder_outputs (N, J, 1) -> logits (N, 1, 1, V + E)

Labels are NeMo's: blank is the last one, V - 1, and all others are one less than here. The logits of E durations stand
behind them, if the model predicts any. The predictor keeps its state, a
frame may emit several labels, and the encoder's metadata say how many feature frames an encoded one stands for. So
nothing is replayed, paired or given twice, as in `nibble.export.sherpa.graphs`, and times are right by themselves.
"""

import torch
from torch import Tensor, nn

from nibble.conventions import BLANK
from nibble.export.sherpa.graphs import EncoderGraph, label_side
from nibble.model.joiner import Joiner
from nibble.model.predictor import LstmPredictor, StatelessPredictor
from nibble.model.transducer import Transducer


class NemoEncoderGraph(nn.Module):
    """The encoder and the joiner's projection of it."""

    def __init__(self, model: Transducer) -> None:
        super().__init__()
        self.graph = EncoderGraph(model, times=1)

    def forward(self, audio_signal: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
        """audio_signal (N, F, T), length (N,) -> (N, J, T'), (N,)."""
        encoded, lengths = self.graph(audio_signal.transpose(1, 2), length)
        return encoded.transpose(1, 2), lengths


class NemoLstmDecoder(nn.Module):
    """One step of an LSTM predictor, and the joiner's projection of it. L and P are its layers and its width."""

    def __init__(self, predictor: LstmPredictor, joiner: Joiner) -> None:
        super().__init__()
        self.predictor = predictor
        self.joiner = joiner
        self.state = len(predictor.layers), predictor.lstm.hidden_size  # L, P

    def forward(
        self, targets: Tensor, target_length: Tensor, states: Tensor, cells: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Shapes as above."""
        x = self.predictor.embedding(_ours(targets, self.joiner.vocabulary_size))  # (N, 1, E)
        hidden, cell = [], []
        for number, lstm in enumerate(self.predictor.layers):
            # A stand-in of `nibble.export.onnx.trace`, which gives both states side by side.
            both = lstm(x, states[number : number + 1], cells[number : number + 1])  # (2, N, P)
            hidden.append(both[:1])
            cell.append(both[1:])
            x = both[0].unsqueeze(1)
        out = self.joiner.project_predictor(x[:, 0]).unsqueeze(2)
        return out, target_length + 0, torch.cat(hidden), torch.cat(cell)


class NemoStatelessDecoder(nn.Module):
    """A predictor of the last labels, which are its state, as numbers: L is 1, and P how many there are."""

    def __init__(self, predictor: StatelessPredictor, joiner: Joiner) -> None:
        super().__init__()
        self.predictor = predictor
        self.joiner = joiner
        self.state = 1, predictor.context

    def forward(
        self, targets: Tensor, target_length: Tensor, states: Tensor, cells: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Shapes as above; before the first label, zeros stand for blanks."""
        label = _ours(targets, self.joiner.vocabulary_size)[:, 0]
        predicted, (labels,) = self.predictor.step(label, (states[0].long(),))
        out = self.joiner.project_predictor(predicted).unsqueeze(2)
        return out, target_length + 0, labels.float().unsqueeze(0), cells + 0


class NemoJoinerGraph(nn.Module):
    """What the joiner does with both projections: labels, blank as the last of them, then durations."""

    def __init__(self, joiner: Joiner) -> None:
        super().__init__()
        self.joiner = joiner

    def forward(self, encoder_outputs: Tensor, decoder_outputs: Tensor) -> Tensor:
        """(N, J, 1), (N, J, 1) -> (N, 1, 1, V + E)."""
        logits = self.joiner.combine(encoder_outputs[:, :, 0], decoder_outputs[:, :, 0])
        labels = self.joiner.vocabulary_size
        parts = [logits[:, BLANK + 1 : labels], logits[:, : BLANK + 1]]
        turned = torch.cat([*parts, logits[:, labels:]] if self.joiner.durations else parts, dim=1)
        return turned.unsqueeze(1).unsqueeze(1)


def nemo_decoder(model: Transducer) -> NemoLstmDecoder | NemoStatelessDecoder:
    """The label side of a model."""
    predictor, joiner = label_side(model)
    if isinstance(predictor, LstmPredictor):
        return NemoLstmDecoder(predictor, joiner)
    return NemoStatelessDecoder(predictor, joiner)


def _ours(targets: Tensor, vocabulary_size: int) -> Tensor:
    """NeMo's labels, blank last, as ours, blank first."""
    return (targets.long() + 1).remainder(vocabulary_size)
