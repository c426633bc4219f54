"""A batch of utterances, as the loader gives it to training and evaluation."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from nibble.conventions import SAMPLE_RATE_HZ


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
    # Both lengths as Python numbers too, because the CPU would wait to read them from a GPU.
    frame_counts: list[int] = field(default_factory=list)
    label_counts: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.frame_counts = self.frame_counts or self.feature_lengths.tolist()
        self.label_counts = self.label_counts or self.label_lengths.tolist()

    def __len__(self) -> int:
        return len(self.ids)

    def to(self, device: torch.device | str) -> "Batch":
        """The same batch with its tensors on `device`; Lightning calls this.

        A copy to a GPU from page-locked memory goes on while the CPU does other things.
        """
        return self._each(lambda tensor: tensor.to(device, non_blocking=torch.device(device).type == "cuda"))

    def pin_memory(self) -> "Batch":
        """The same batch in page-locked memory, from which a GPU copies while it computes; torch calls this."""
        return self._each(Tensor.pin_memory)

    def share_memory(self) -> "Batch":
        """The same batch in memory that other processes see too."""
        return self._each(lambda tensor: tensor.share_memory_() if tensor.numel() else tensor)

    def _each(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        """The batch with each of its four tensors changed."""
        return replace(
            self,
            features=change(self.features),
            feature_lengths=change(self.feature_lengths),
            labels=change(self.labels),
            label_lengths=change(self.label_lengths),
        )


def unlabelled(features: Sequence[Tensor], samples: Sequence[Tensor]) -> Batch:
    """A batch of speech to recognise, of which no text is known.

    Args:
        features: (T, F) of each utterance.
        samples: (samples,) of each, at 16 kHz.
    """
    nothing = torch.zeros(len(features), 0, dtype=torch.int64)
    return Batch(
        features=pad_sequence(list(features), batch_first=True),
        feature_lengths=torch.tensor([len(matrix) for matrix in features]),
        labels=nothing,
        label_lengths=torch.zeros(len(features), dtype=torch.int64),
        ids=[str(number) for number in range(len(features))],
        texts=[""] * len(features),
        duration_s=sum(map(len, samples)) / SAMPLE_RATE_HZ,
        position=(0, 0),
        samples=list(samples),
    )
