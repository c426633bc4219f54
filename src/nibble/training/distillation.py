"""Distillation: adds to the loss of a quantized student how much it differs from a float teacher.

Two terms, each zero where student and teacher agree:
- encoder_match: the outputs of both encoders, as hidden layers in Romero et al. (2015), equation 3;
- posterior: the label distributions at the nodes of the transducer's lattice, collapsed to three classes
  (Panchapagesan et al., 2021, arXiv 2011.06110, section 3), each weighted by how probably the teacher passes it.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from nibble import distributed
from nibble.conventions import BLANK
from nibble.model.lattice import transducer_lattice
from nibble.model.padding import valid_frames
from nibble.model.transducer import Transducer
from nibble.quant.convert import precision_of
from nibble.training.losses import Encoded, Found, Loss, plain
from nibble.training.options import DistillConfig
from nibble.training.teacher import Teacher

ABSENT = -1e30  # a logit without probability; finite, since 0 x infinity is NaN


@dataclass(frozen=True)
class Taught:
    """Adds a teacher's terms to another loss, in training, at the precisions that the teacher teaches.

    Attributes:
        other: the loss of the network's labels.
        teacher: the float network.
        options: weights of the terms.
    """

    other: Loss
    teacher: Teacher
    options: DistillConfig

    def __call__(self, network: Transducer, encoded: Encoded) -> Found:
        """The loss with the terms that have a weight."""
        if not (network.training and self.teacher.teaches(precision_of(network))):
            return self.other(network, encoded)
        # The lattice is compared node by node, so its logits are made as a whole.
        found = (plain if self.options.posterior_weight else self.other)(network, encoded)
        teaching, terms = self.teaching(network, encoded, found.logits)
        return Found(found.loss + teaching, found.terms | terms, found.logits)

    def teaching(
        self, network: Transducer, encoded: Encoded, logits: Tensor | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted sum of the terms, and each term by name; scalars. Gradients reach the student only.

        Args:
            network: the student.
            encoded: the batch that it has heard.
            logits: of the student, (B, T', U + 1, V); needed if the posterior term has a weight.
        """
        options, batch = self.options, encoded.batch
        terms: dict[str, Tensor] = {}
        total = torch.zeros((), device=encoded.output.device)
        with torch.no_grad(), self.teacher.listening(network) as model:
            heard, _ = model.encode(batch.features, batch.feature_lengths)
            shown = model.join(heard, model.predict(batch.labels)) if options.posterior_weight else None
        if options.encoder_weight:
            terms["encoder_match"] = encoder_match(encoded.output, heard, encoded.lengths)
            total = total + options.encoder_weight * terms["encoder_match"]
        if shown is not None:
            assert logits is not None, "distill.posterior_weight needs the logits"
            found, right = collapse(logits, batch.labels), collapse(shown, batch.labels)
            terms["posterior"] = posterior_divergence(found, right, encoded.lengths, batch.label_lengths)
            total = total + options.posterior_weight * terms["posterior"]
        return total, terms


def encoder_match(student: Tensor, teacher: Tensor, lengths: Tensor) -> Tensor:
    """Mean squared difference of two encoders' outputs over valid frames, relative to the teacher's variance: a scalar.

    Over the batches of all processes that train together, as is `posterior_divergence`.

    Args:
        student: (B, T', D)
        teacher: (B, T', D)
        lengths: encoded lengths, (B,).
    """
    student, teacher = student.float(), teacher.float()
    valid = valid_frames(lengths, teacher.size(1)).expand_as(teacher)
    variance = masked_mean((teacher - masked_mean(teacher, valid)).square(), valid)
    return masked_mean((student - teacher).square(), valid) / variance.clamp(min=torch.finfo(torch.float32).tiny)


def collapse(logits: Tensor, labels: Tensor) -> Tensor:
    """Log-probabilities (B, T', U + 1, 3) of blank, of the right next label, and of all other labels together.

    Where no label is left, only blank and the others have probability.

    Args:
        logits: (B, T', U + 1, V), before the softmax.
        labels: (B, U), padded with blank.
    """
    logits = logits.float()
    following = F.pad(labels, (0, 1), value=BLANK)[:, None, :, None].expand(*logits.shape[:3], 1)
    label = logits.gather(3, following).masked_fill(following == BLANK, ABSENT)
    others = logits.scatter(3, following, ABSENT)[..., BLANK + 1 :].logsumexp(3, keepdim=True)
    return torch.cat((logits[..., BLANK : BLANK + 1], label, others), dim=3).log_softmax(3)


def posterior_divergence(student: Tensor, teacher: Tensor, lengths: Tensor, label_lengths: Tensor) -> Tensor:
    """Kullback-Leibler divergence of the teacher's to the student's distribution, per label: a scalar.

    Summed over the nodes that an alignment passes, in expectation over the teacher's alignments, as the transducer
    loss sums. With equal weights, most of the sum would come from nodes that no alignment passes.

    Args:
        student: log-probabilities of `collapse`, (B, T', U + 1, 3).
        teacher: the same.
        lengths: encoded lengths, (B,).
        label_lengths: (B,)
    """
    divergence = (teacher.exp() * (teacher - student)).sum(3)
    _, edges = transducer_lattice(teacher[..., :2], lengths, label_lengths)  # a path leaves a node by one of two
    weight = edges.sum(3).to(divergence.dtype)
    return distributed.total((weight * divergence).sum()) / distributed.total(label_lengths.sum()).clamp(min=1)


def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """The mean of x where mask, of the same shape, is True; over all processes that train together."""
    return distributed.total(torch.where(mask, x, 0.0).sum()) / distributed.total(mask.sum())
