"""The seam `Loss`: the transducer loss computed in two ways, with or without CTC, and CTC alone."""

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nibble.data.batch import Batch
from nibble.model.ctc import CtcHead
from nibble.model.fused_loss import fused_transducer_loss
from nibble.model.joiner import Joiner
from nibble.model.loss import transducer_loss
from nibble.model.options import ModelConfig, Predictor
from nibble.model.targets import Targets
from nibble.model.transducer import Transducer
from nibble.training.options import LossConfig


@dataclass(frozen=True)
class Encoded:
    """A batch with its encoder outputs. B batch, T' encoded frames, D width."""

    batch: Batch
    output: Tensor  # (B, T', D)
    lengths: Tensor  # (B,)
    counts: list[int]  # `lengths` as Python numbers, because the CPU would wait to read them from a GPU
    labels: Tensor | int  # a scalar by which sums over utterances are divided, such as the number of labels

    @property
    def targets(self) -> Targets:
        """The labels and lengths that the transducer loss needs."""
        batch = self.batch
        return Targets(self.lengths, batch.labels, batch.label_lengths, (self.counts, batch.label_counts))


class Found(NamedTuple):
    """The loss of a batch and its terms."""

    loss: Tensor  # a scalar: what is minimised
    terms: dict[str, Tensor]  # its parts by name, before their weights: scalars, for the loggers
    logits: Tensor | None = None  # (B, T', U + 1, V), if the joiner has made all of them at once


class Loss(Protocol):
    """Computes what training minimises; the seam for a loss of your own.

    It is given a network and a batch that the network's encoder has seen, in training and in validation
    (`network.training` tells), and returns a scalar in nats per label: a sum over the utterances, divided by
    `encoded.labels`. It masks padding itself: frames from `encoded.lengths` on and labels from `batch.label_lengths` on
    change nothing. Its gradient reaches the network, and parameters of its own, which the LightningModule registers.
    """

    def __call__(self, network: Transducer, encoded: Encoded) -> Found:
        """The loss of a batch and its terms."""
        ...


def encode(network: Transducer, batch: Batch, labels: Tensor | int = 1) -> Encoded:
    """Encode a batch for a loss, which is divided by `labels`."""
    output, lengths = network.encode(batch.features, batch.feature_lengths)
    counts = [network.encoder.output_length(frames) for frames in batch.frame_counts]
    return Encoded(batch, output, lengths, counts, labels)


def fused(network: Transducer, encoded: Encoded) -> Found:
    """The transducer loss, with durations or without, with the joiner in it: logits of a few utterances at a time."""
    assert isinstance(network.joiner, Joiner), "a CTC network has another loss"
    predicted = network.predict(encoded.batch.labels)
    loss = fused_transducer_loss(network.joiner, encoded.output, predicted, encoded.targets) / encoded.labels
    return Found(loss, {"transducer": loss})


def plain(network: Transducer, encoded: Encoded) -> Found:
    """The transducer loss of all logits at once, by torchaudio."""
    logits = network.joiner(encoded.output, network.predict(encoded.batch.labels))
    lengths, labels, label_lengths, _ = encoded.targets
    loss = transducer_loss(logits, lengths, labels, label_lengths).sum() / encoded.labels
    return Found(loss, {"transducer": loss}, logits)


def ctc(network: Transducer, encoded: Encoded) -> Found:
    """CTC alone, of a network without predictor."""
    assert isinstance(network.joiner, CtcHead), "a transducer has another loss"
    loss = _ctc(network.joiner.output, encoded)
    return Found(loss, {"ctc": loss})


def of_labels(model: ModelConfig, options: LossConfig) -> Loss:
    """The loss of a network's labels: CTC, or the transducer loss as `loss=` asks for it to be computed."""
    if model.predictor is Predictor.none:
        return ctc
    return fused if options.fused else plain


def _ctc(head: nn.Module, encoded: Encoded) -> Tensor:
    """The CTC loss of a head (..., D) -> (..., V), in nats a label; of more labels than frames there is none."""
    batch = encoded.batch
    with torch.autocast(encoded.output.device.type, enabled=False):
        log_probs = head(encoded.output.float()).log_softmax(-1).transpose(0, 1)  # (T', B, V)
        loss = F.ctc_loss(
            log_probs,
            batch.labels,
            encoded.counts,  # type: ignore[arg-type]
            batch.label_counts,  # type: ignore[arg-type]
            reduction="sum",
            zero_infinity=True,
        )
    return loss / encoded.labels


@dataclass(frozen=True)
class WithCtc:
    """Another loss, and CTC on the encoder's output as a training aid (Watanabe et al., 2017).

    Attributes:
        other: the loss of the network's labels.
        head: (..., D) -> (..., V); it exists in training only.
        weight: of the CTC term.
    """

    other: Loss
    head: nn.Linear
    weight: float

    def __call__(self, network: Transducer, encoded: Encoded) -> Found:
        """The sum of both losses; an utterance with more labels than frames has no CTC loss."""
        found, term = self.other(network, encoded), _ctc(self.head, encoded)
        return Found(found.loss + self.weight * term, {**found.terms, "ctc": term}, found.logits)
