"""Random speech with random labels: the time and memory of a step depend on sizes alone."""

import torch

from nibble.data.batch import Batch


def random_batch(utterances: int, frames: int, mel_bins: int, labels: int, vocabulary: int) -> Batch:
    """A batch of utterances that are equally long, from torch's random state.

    Args:
        utterances: B.
        frames: T of each.
        mel_bins: F.
        labels: U of each, of real symbols.
        vocabulary: V.
    """
    return Batch(
        features=torch.randn(utterances, frames, mel_bins),
        feature_lengths=torch.full((utterances,), frames),
        labels=torch.randint(2, vocabulary, (utterances, labels)),
        label_lengths=torch.full((utterances,), labels),
        ids=[str(number) for number in range(utterances)],
        texts=[""] * utterances,
        duration_s=0.0,
        position=(0, 0),
    )
