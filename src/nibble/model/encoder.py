"""The seam between an encoder and everything that uses one."""

from typing import Protocol, TypeVar

from torch import Tensor

Count = TypeVar("Count", int, Tensor)  # a number of frames, or one for each utterance (B,)


class Encoder(Protocol):
    """Turns feature frames into encoded frames, which are fewer and wider: (B, T, F) -> (B, T', D).

    Legend: B utterances, T feature frames, F mel bins, T' encoded frames, D model width.

    Every implementation keeps these promises, and `tests/model/test_encoder_contract.py` checks them for each:

    - Lengths: `forward` returns the lengths that `output_length` computes. Each is at least 1, and an utterance with
      more feature frames never has fewer encoded frames. T' is the largest of them or more.
    - Padding: the encoder masks it. Feature frames behind an utterance's end may hold any finite value; encoded frames
      behind its end are 0.
    - Neighbours: the encoded frames of an utterance don't depend on the other utterances in the batch, or on how far
      it was padded.
    - Time: encoded frame t stands for the feature frames around `factor` * t.
    """

    factor: int  # feature frames from one encoded frame to the next
    width: int  # D
    mel_bins: int  # F

    def output_length(self, frames: Count) -> Count:
        """Encoded frames of an utterance of `frames` feature frames: a number, or one for each utterance (B,)."""
        ...

    def __call__(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """features (B, T, F), lengths (B,) -> encoded (B, T', D) with padding 0, encoded lengths (B,)."""
        ...
