"""What the loader hands to training and evaluation."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass
class Batch:
    """Utterances side by side. B batch, T frames, F mel bins, U label positions."""

    features: Tensor  # (B, T, F) float32, padded with 0
    feature_lengths: Tensor  # (B,) int64
    labels: Tensor  # (B, U) int64, padded with 0
    label_lengths: Tensor  # (B,) int64
    ids: list[str]  # utterance ids
    texts: list[str]
    duration_s: float  # speech in this batch
    position: tuple[int, int]  # (epoch, index of this batch in the epoch)
    samples: list[Tensor] | None = None  # (samples,) each, at 16 kHz in [-1, 1]; None unless the loader keeps them

    def __len__(self) -> int:
        return len(self.ids)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "Batch":
        """The same batch with its tensors on `device`; Lightning calls this."""
        return replace(
            self,
            features=self.features.to(device, non_blocking=non_blocking),
            feature_lengths=self.feature_lengths.to(device, non_blocking=non_blocking),
            labels=self.labels.to(device, non_blocking=non_blocking),
            label_lengths=self.label_lengths.to(device, non_blocking=non_blocking),
        )

    def pin_memory(self) -> "Batch":
        """The same batch in page-locked memory, from which a GPU copies while it computes; torch calls this."""
        return replace(
            self,
            features=self.features.pin_memory(),
            feature_lengths=self.feature_lengths.pin_memory(),
            labels=self.labels.pin_memory(),
            label_lengths=self.label_lengths.pin_memory(),
        )
