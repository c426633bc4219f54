"""Batches on their way to a device."""

import torch

from nibble.data.batch import Batch


def batch() -> Batch:
    return Batch(
        features=torch.randn(2, 7, 3),
        feature_lengths=torch.tensor([7, 4]),
        labels=torch.tensor([[1, 2], [3, 0]]),
        label_lengths=torch.tensor([2, 1]),
        ids=["a", "b"],
        texts=["", ""],
        duration_s=0.1,
        position=(0, 0),
    )


def test_lengths_are_known_without_asking_the_device():
    moved = batch().to("meta")
    assert moved.features.is_meta
    assert moved.label_lengths.is_meta
    assert (moved.frame_counts, moved.label_counts) == ([7, 4], [2, 1])


def test_a_copy_to_a_gpu_waits_for_nothing(monkeypatch):
    asked = []
    to = torch.Tensor.to
    monkeypatch.setattr(
        torch.Tensor, "to", lambda x, device, non_blocking: (asked.append((device, non_blocking)), to(x, "meta"))[1]
    )
    batch().to("cuda")
    batch().to(torch.device("cpu"))  # one that reads at once what a GPU still writes would read nonsense
    assert asked == [("cuda", True)] * 4 + [(torch.device("cpu"), False)] * 4
