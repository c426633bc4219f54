"""The transducer loss of single utterances and of many."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from nibble.data.batch import Batch
from nibble.model.loss import transducer_loss
from nibble.model.transducer import Transducer


def utterance_losses(model: Transducer, batch: Batch) -> Tensor:
    """Negative log-probability of the labels of each utterance, in nats: (B,)."""
    logits, _, lengths = model(batch.features, batch.feature_lengths, batch.labels, batch.label_lengths)
    return transducer_loss(logits, lengths, batch.labels, batch.label_lengths)


@torch.no_grad()
def loss_per_label(model: Transducer, batches: Sequence[Batch]) -> float:
    """The loss of all utterances in nats, divided by their labels."""
    return sum(float(utterance_losses(model, batch).sum()) for batch in batches) / label_count(batches)


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
