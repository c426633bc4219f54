"""The three graphs that sherpa-onnx runs, as an icefall transducer has them.

encoder  x (N, T, F), x_lens (N,) -> encoder_out (N, T', J), encoder_out_lens (N,)
decoder  y (N, context) -> decoder_out (N, J)
joiner   encoder_out (N, J), decoder_out (N, J) -> logit (N, V)

y holds the last labels; before the first there is blank (0), and before that -1.

The encoder of a model that streams, L blocks with a left context of so many frames and kernels of K frames, is that of
icefall's streaming Conformers. It takes one chunk of c frames, and what it remembers of those before:

encoder  x (N, 4 c + 3, F), cached_attn (L, left, N, 2 D), cached_conv (L, (K - 1) / 2, N, 2 D), processed_lens (N,)
         -> encoder_out (N, c, J), new_cached_attn, new_cached_conv
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nibble.model.conformer import ConformerEncoder
from nibble.model.encoder import Encoder
from nibble.model.joiner import Joiner
from nibble.model.predictor import LstmPredictor, StatelessPredictor
from nibble.model.streaming_encoder import StreamingEncoder
from nibble.model.transducer import Transducer

REPLAYED = 32  # labels that an LSTM is replayed on
_FACTOR = 4  # feature frames in one of the encoder's, as sherpa-onnx takes it to be


class EncoderGraph(nn.Module):
    """The encoder and the joiner's projection of it.

    sherpa-onnx takes a frame to last 40 ms. One that lasts n times as long is given n times; what is found is what a
    search for up to n labels a frame finds, since after a blank the same frame gives blank again.

    Args:
        model: the network.
        times: how often a frame is given; None: as often as that takes.
    """

    def __init__(self, model: Transducer, times: int | None = None) -> None:
        super().__init__()
        assert isinstance(model.encoder, ConformerEncoder), "a foundation encoder is not exported"
        self.times = times or times_given(model.encoder)
        self.encoder = model.encoder
        self.joiner = model.joiner

    def forward(self, x: Tensor, x_lens: Tensor) -> tuple[Tensor, Tensor]:
        """x (N, T, F), x_lens (N,) -> (N, T', J), (N,)."""
        # A trace has no branches: short input is filled up here and not where the model does it.
        if (shortest := self.encoder.subsampling.min_frames) > 1:
            frames = torch._shape_as_tensor(x)[1].clamp(min=shortest)
            x = F.pad(x, (0, 0, 0, shortest - 1))[:, :frames]
        encoded, lengths = self.encoder(x, x_lens)
        projected = self.joiner.project_encoder(encoded)
        return _repeated(projected, self.times), lengths * self.times


class StreamingEncoderGraph(nn.Module):
    """`StreamingEncoder.step` and the joiner's projection of it; frames are repeated as in `EncoderGraph`.

    sherpa-onnx knows one width of all caches, which is 2 D here: keys and values lie side by side, so that neither is
    computed twice, and so do two frames of the convolution.
    """

    def __init__(self, model: Transducer) -> None:
        super().__init__()
        assert isinstance(model.encoder, StreamingEncoder), "an encoder of whole utterances has a graph of its own"
        self.times = times_given(model.encoder)
        self.encoder = model.encoder
        self.joiner = model.joiner

    def forward(
        self, x: Tensor, cached_attn: Tensor, cached_conv: Tensor, processed_lens: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Shapes as above; processed_lens counts feature frames."""
        memory = []
        for attention, convolution in zip(cached_attn.unbind(), cached_conv.unbind(), strict=True):
            memory.append(attention.transpose(0, 1))
            memory.append(convolution.transpose(0, 1).unflatten(2, (2, -1)).flatten(1, 2))
        encoded, memory = self.encoder.step(x, memory, processed_lens // self.encoder.factor)
        attention = torch.stack([keys_and_values.transpose(0, 1) for keys_and_values in memory[::2]])
        convolution = torch.stack([frames.unflatten(1, (-1, 2)).flatten(2).transpose(0, 1) for frames in memory[1::2]])
        return _repeated(self.joiner.project_encoder(encoded), self.times), attention, convolution


def times_given(encoder: Encoder) -> int:
    """How often each frame is repeated, so that sherpa-onnx, which assumes a factor of 4, reports the right times."""
    return max(1, encoder.factor // _FACTOR)


def _repeated(frames: Tensor, times: int) -> Tensor:
    """frames (N, T, J) -> (N, times T, J), each repeated `times` times."""
    return frames if times == 1 else frames.unsqueeze(2).expand(-1, -1, times, -1).flatten(1, 2)


class StatelessDecoder(nn.Module):
    """A predictor that sees the last labels only, and the joiner's projection of it.

    The model pads with blanks, so a label of -1 counts as blank.
    """

    def __init__(self, predictor: StatelessPredictor, joiner: Joiner) -> None:
        super().__init__()
        self.predictor = predictor
        self.joiner = joiner
        self.context = predictor.context

    def forward(self, y: Tensor) -> Tensor:
        """y (N, context) -> (N, J)."""
        labels = y.clamp(min=0)
        before = F.pad(labels[:, :-1], (1, 0))  # `step` drops the first and appends the label
        return self.joiner.project_predictor(self.predictor.step(labels[:, -1], (before,))[0])


class ReplayDecoder(nn.Module):
    """An LSTM predictor without a state: it starts anew and is replayed on the last labels.

    sherpa-onnx passes labels to an icefall decoder and no state. (Its NeMo decoders have one, but come with features
    of their own, so these models would hear something else than in training.) For fewer labels than the context the
    result is that of the stateful LSTM; later ones forget what lies further back.
    """

    def __init__(self, predictor: LstmPredictor, joiner: Joiner) -> None:
        super().__init__()
        self.predictor = predictor
        self.joiner = joiner
        self.context = REPLAYED

    def forward(self, y: Tensor) -> Tensor:
        """y (N, context) -> (N, J)."""
        steps = (y >= 0).sum(1)
        positions = torch.arange(self.context)
        # Labels stand at the end of y. They are turned to its beginning, so that the LSTM starts with the first.
        turned = y.gather(1, (positions - steps.unsqueeze(1)).remainder(self.context))
        embedded = self.predictor.embedding(turned.clamp(min=0)) * (positions < steps.unsqueeze(1)).unsqueeze(2)
        *lower, top = self.predictor.layers
        for lstm in lower:
            embedded = lstm(embedded)
        return self.joiner.project_predictor(top(embedded, steps))


class JoinerGraph(nn.Module):
    """What the joiner does with both projections."""

    def __init__(self, joiner: Joiner) -> None:
        super().__init__()
        self.joiner = joiner

    def forward(self, encoder_out: Tensor, decoder_out: Tensor) -> Tensor:
        """(N, J), (N, J) -> (N, V)."""
        return self.joiner.combine(encoder_out, decoder_out)


def decoder_graph(model: Transducer) -> StatelessDecoder | ReplayDecoder:
    """The label side of a model."""
    predictor, joiner = label_side(model)
    if isinstance(predictor, LstmPredictor):
        return ReplayDecoder(predictor, joiner)
    return StatelessDecoder(predictor, joiner)


def label_side(model: Transducer) -> tuple[LstmPredictor | StatelessPredictor, Joiner]:
    """The predictor and the joiner of a model that has them."""
    assert isinstance(model.joiner, Joiner), "a CTC network has no label side"
    assert isinstance(model.predictor, LstmPredictor | StatelessPredictor)
    return model.predictor, model.joiner
