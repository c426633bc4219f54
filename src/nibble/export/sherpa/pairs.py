"""Lets sherpa-onnx, which emits at most one label a frame, emit two at once as a pair.

Models whose labels are characters often say two in the 40 ms of a frame. Were each frame given twice, sherpa-onnx would
take speech to last twice as long: its timestamps would be late, and its endpoint rules would fire early. So the labels
of such an export are those of the model, and after them each pair that can follow one another:

    id = V + (first - 2) (V - 2) + (second - 2)        blank (0) and unknown (1) are in no pair

The joiner looks for the best label and, if that is not blank, for the best label after it; it gives the pair the logit
of the first. What greedy search finds is what a search for up to two labels a frame finds, but for one rule: the second
label of a pair does not begin a word, because sherpa-onnx writes a space for U+2581 only where a token begins.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nibble.conventions import WORD_START
from nibble.data.tokenizer import UNKNOWN, Tokenizer
from nibble.export.sherpa.graphs import StatelessDecoder
from nibble.model.joiner import Joiner
from nibble.model.predictor import StatelessPredictor

MOST_LABELS = 128  # of a model that gets pairs: their number is the square
_PAIRED = UNKNOWN + 1  # the first label that can be in a pair
_NEVER = -1e4  # a logit


def pair_symbols(tokenizer: Tokenizer) -> list[str]:
    """The symbol of each pair, in the order of ids."""
    pieces = tokenizer.pieces(range(_PAIRED, tokenizer.size))
    return [first + second for first in pieces for second in pieces]


class PairDecoder(StatelessDecoder):
    """As `StatelessDecoder`, for labels and pairs of labels.

    Beside the projection it returns all of the last labels but the oldest: `PairJoiner` looks one label ahead.
    """

    def forward(self, y: Tensor) -> Tensor:
        """y (N, context), -1 for none -> (N, J + context - 1)."""
        y = y.clamp(min=0)
        paired = self.joiner.vocabulary_size - _PAIRED
        pair = y >= self.joiner.vocabulary_size
        number = (y - self.joiner.vocabulary_size).clamp(min=0)
        row = torch.div(number, paired, rounding_mode="trunc")
        first, second = torch.where(pair, row + _PAIRED, y), number - row * paired + _PAIRED
        labels = torch.zeros_like(y)
        for index in range(self.context):
            position = slice(index, index + 1)
            one = torch.cat((labels[:, 1:], first[:, position]), dim=1)
            two = torch.cat((one[:, 1:], second[:, position]), dim=1)
            labels = torch.where(pair[:, position], two, one)
        return torch.cat((super().forward(labels), labels[:, 1:].float()), dim=1)


class PairJoiner(nn.Module):
    """The joiner, looking one label ahead.

    Args:
        predictor: of the model.
        joiner: of the model.
        width: J.
        tokenizer: of the model.
    """

    begins_word: Tensor

    def __init__(self, predictor: StatelessPredictor, joiner: Joiner, width: int, tokenizer: Tokenizer) -> None:
        super().__init__()
        self.predictor = predictor
        self.joiner = joiner
        self.width = width
        begins = [piece.startswith(WORD_START) for piece in tokenizer.pieces(range(tokenizer.size))]
        self.register_buffer("begins_word", torch.tensor(begins).long())

    def forward(self, encoder_out: Tensor, decoder_out: Tensor) -> tuple[Tensor, Tensor]:
        """(N, J), (N, J + context - 1) -> logits of labels and pairs (N, V + pairs), those of labels alone (N, V)."""
        size = self.joiner.vocabulary_size
        predicted, labels = decoder_out[:, : self.width], decoder_out[:, self.width :].long()
        logit = self.joiner.combine(encoder_out, predicted)
        first = logit.argmax(1)
        after = self.predictor.step(first, (F.pad(labels, (1, 0)),))[0]
        second = self.joiner.combine(encoder_out, self.joiner.project_predictor(after)).argmax(1)
        pair = (first >= _PAIRED) & (second >= _PAIRED) & (self.begins_word[second] == 0)
        paired = size - _PAIRED
        chosen = torch.where(pair, size + (first - _PAIRED) * paired + second - _PAIRED, first)
        ids = torch.arange(size + paired * paired)
        alone = F.pad(logit, (0, paired * paired), value=_NEVER)
        others = torch.where(ids == first.unsqueeze(1), _NEVER, alone)
        return torch.where(ids == chosen.unsqueeze(1), logit.gather(1, first.unsqueeze(1)), others), logit
