"""A float model with random weights, and speech-like noise for it."""

import pytest
import torch

from nibble.data.batch import Batch
from nibble.runs.checkpoint import load_checkpoint
from nibble.runs.loaded import Loaded


@pytest.fixture
def loaded(write_run) -> Loaded:
    return load_checkpoint(write_run())


@pytest.fixture
def batches() -> list[Batch]:
    """Two batches of two utterances."""
    draw = torch.Generator().manual_seed(0)
    made = []
    for index in range(2):
        lengths = torch.tensor([40, 25])
        features = torch.randn(2, 40, 80, generator=draw)
        features[1, 25:] = 0
        labels = torch.randint(1, 10, (2, 5), generator=draw)
        labels[1, 3:] = 0
        counts = torch.tensor([5, 3])
        made.append(Batch(features, lengths, labels, counts, ["a", "b"], ["", ""], 0.65, (0, index)))
    return made
