"""A batch of two utterances, of 60 and 40 frames."""

import torch

from nibble.data.batch import Batch


def random_batch() -> Batch:
    """Random features; labels 2 to 5."""
    return Batch(
        features=torch.randn(2, 60, 80),
        feature_lengths=torch.tensor([60, 40]),
        labels=torch.tensor([[2, 3, 4], [5, 2, 0]]),
        label_lengths=torch.tensor([3, 2]),
        ids=["a", "b"],
        texts=["UP", "DOWN GO"],
        duration_s=1.0,
        position=(0, 0),
    )
