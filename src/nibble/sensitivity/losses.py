"""The transducer loss of whole batches, and of single utterances."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from nibble.data.batch import Batch
from nibble.model.transducer import Transducer
from nibble.training.losses import Loss, encode


def batch_loss(loss: Loss, model: Transducer, batch: Batch) -> Tensor:
    """Negative log-probability of the labels, summed over utterances, in nats: a scalar."""
    return loss(model, encode(model, batch)).loss


@torch.no_grad()
def loss_per_label(loss: Loss, model: Transducer, batches: Sequence[Batch]) -> float:
    """The loss of all utterances in nats, divided by their labels."""
    return sum(float(batch_loss(loss, model, batch)) for batch in batches) / label_count(batches)


def label_count(batches: Sequence[Batch]) -> int:
    """How many labels the utterances have, at least 1."""
    return max(1, sum(sum(batch.label_counts) for batch in batches))


def one_by_one(batches: Sequence[Batch]) -> Iterator[Batch]:
    """Each utterance as a batch of its own, without padding."""
    for batch in batches:
        for i, (frames, labels) in enumerate(zip(batch.frame_counts, batch.label_counts, strict=True)):
            yield replace(
                batch,
                features=batch.features[i : i + 1, :frames],
                feature_lengths=batch.feature_lengths[i : i + 1],
                labels=batch.labels[i : i + 1, :labels],
                label_lengths=batch.label_lengths[i : i + 1],
                frame_counts=[frames],
                label_counts=[labels],
                ids=batch.ids[i : i + 1],
                texts=batch.texts[i : i + 1],
            )
