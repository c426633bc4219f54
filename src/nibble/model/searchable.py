"""The seam `Searchable`: what greedy and beam search need of a transducer."""

from typing import NamedTuple, Protocol

import torch
from torch import Tensor


class LabelState(NamedTuple):
    """The state of the label side for some hypotheses, one row each."""

    predicted: Tensor  # (rows, J or more): the predictor's output, projected for the joiner
    memory: tuple[Tensor, ...]  # (rows, …) each: what the predictor carries from label to label

    def select(self, rows: Tensor) -> "LabelState":
        """The hypotheses at `rows` (n,)."""
        return LabelState(self.predicted[rows], tuple(part[rows] for part in self.memory))

    def replace(self, rows: Tensor, new: "LabelState") -> None:
        """Overwrite the hypotheses at `rows` (n,)."""
        self.predicted[rows] = new.predicted
        for part, new_part in zip(self.memory, new.memory, strict=True):
            part[rows] = new_part


class Searchable(Protocol):
    """A transducer as a search uses it: the network, or an exported folder in ONNX Runtime.

    An utterance's result must not depend on its neighbours in the batch, and a row's not on the other rows. J is the
    width at which encoder and predictor are added; label 0 is blank.
    """

    @property
    def durations(self) -> int:
        """E: logits of durations of 0, 1, ... frames that stand behind those of labels; 0 of most transducers."""
        ...

    def encode(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """features (B, T, F), lengths (B,) -> encoded (B, T', D), encoded lengths (B,)."""
        ...

    def project(self, encoded: Tensor) -> Tensor:
        """Encoded frames (B, T', D) -> (B, T', J). A search calls it once, before its loop over frames."""
        ...

    def start_labels(self, rows: int, device: torch.device) -> LabelState:
        """The state of `rows` hypotheses that have no label yet."""
        ...

    def append_label(self, label: Tensor, state: LabelState) -> LabelState:
        """The state after one more label, (rows,), for each hypothesis of `state`."""
        ...

    def label_logits(self, frame: Tensor, state: LabelState) -> Tensor:
        """A projected frame for all hypotheses (J,), or one for each (rows, J) -> next label's logits (rows, V + E)."""
        ...
