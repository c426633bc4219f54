"""The options of the network: `model=`."""

from dataclasses import dataclass
from enum import StrEnum

from omegaconf import MISSING

from nibble.errors import UserError
from nibble.ranges import COUNT, Range, check

MAX_ATTENDED_FRAMES = 1_000  # of a model that streams: a file from anywhere must not make it take any memory


class Predictor(StrEnum):
    """The label side of the transducer."""

    lstm = "lstm"  # Graves (2012); one layer
    stateless = "stateless"  # Ghodsi et al. (2020): the last `context` labels


@dataclass
class ModelConfig:
    """`model=`: a Conformer-Transducer (Gulati et al., 2020)."""

    name: str = MISSING  # in records
    width: int = MISSING  # D, of the encoder
    layers: int = MISSING  # Conformer blocks
    heads: int = MISSING  # of attention; they divide the width
    feed_forward_multiplier: int = 4  # inner width of the feed-forward modules, in widths
    subsampling_channels: int | None = None  # of the two strided convolutions; null: model.width, as the paper
    kernel: int = 31  # of the depthwise convolution, in frames of 40 ms
    chunk_frames: int | None = None  # streaming: frames of 40 ms that are encoded at once; null: whole utterances
    left_chunks: int = 4  # streaming: chunks before its own that a frame attends to
    dropout: float = 0.1  # share of the outputs of each residual module
    predictor: Predictor = Predictor.lstm
    predictor_width: int = MISSING  # of its output
    context: int = 2  # stateless: labels seen
    joiner_width: int = MISSING  # where encoder and predictor are added

    def __post_init__(self) -> None:
        check(
            self,
            "model.",
            width=COUNT,
            layers=COUNT,
            heads=COUNT,
            feed_forward_multiplier=COUNT,
            subsampling_channels=COUNT,
            kernel=COUNT,
            dropout=Range(0, 0.99),
            predictor_width=COUNT,
            context=COUNT,
            joiner_width=COUNT,
        )
        if self.width % self.heads:
            raise UserError(f"model.heads={self.heads} does not divide model.width={self.width}")
        if self.kernel % 2 == 0:
            raise UserError(f"model.kernel={self.kernel} has no middle; give an odd number such as {self.kernel + 1}")
        if self.chunk_frames is not None:
            self._check_streaming(self.chunk_frames)

    def _check_streaming(self, chunk_frames: int) -> None:
        if chunk_frames < 1:
            raise UserError(
                f"model.chunk_frames={chunk_frames}; give at least 1 (16 are 640 ms), or null for whole utterances"
            )
        # sherpa-onnx keeps what is before a chunk in tensors of these sizes, and they may not be empty.
        if self.left_chunks < 1:
            raise UserError(f"model.left_chunks={self.left_chunks}; give at least 1, as a streaming model needs a past")
        if self.kernel < 3:
            raise UserError(f"model.kernel={self.kernel} sees no past; with model.chunk_frames, give at least 3")
        attended = chunk_frames * (1 + self.left_chunks)
        if attended > MAX_ATTENDED_FRAMES:
            raise UserError(
                f"model.chunk_frames={chunk_frames} with model.left_chunks={self.left_chunks} makes a frame attend to "
                f"{attended}; give at most {MAX_ATTENDED_FRAMES} in all (40 s)"
            )
