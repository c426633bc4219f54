"""The targets of a transducer loss."""

from typing import NamedTuple

from torch import Tensor


class Targets(NamedTuple):
    """The labels of a batch, and the lengths of its utterances without padding."""

    lengths: Tensor  # (B,) encoded frames
    labels: Tensor  # (B, U), padded with blank
    label_lengths: Tensor  # (B,)
    # `lengths` and `label_lengths` as numbers; without them, the CPU waits for the GPU that has the tensors
    counts: tuple[list[int], list[int]] | None = None
