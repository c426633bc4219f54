"""A float teacher beside a quantized student: what the student loses by differing from it, added to its own loss.

Two terms, each zero where student and teacher agree:
- encoder_match: the outputs of both encoders, as hidden layers in Romero et al. (2015), equation 3;
- posterior: the label distributions at the nodes of the transducer's lattice, collapsed to three classes
  (Panchapagesan et al., 2021, arXiv 2011.06110, section 3), each weighted by how probably the teacher passes it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import takewhile
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from nibble import distributed
from nibble.config import Config
from nibble.data.batch import Batch
from nibble.data.tokenizer import Tokenizer
from nibble.errors import UserError
from nibble.features.options import Normalization
from nibble.model.lattice import transducer_lattice
from nibble.model.padding import valid_frames
from nibble.model.transducer import BLANK, Transducer
from nibble.quant.convert import evaluated_at, set_precision
from nibble.quant.spec import Precision
from nibble.runs.checkpoint import load_checkpoint
from nibble.runs.loaded import Loaded
from nibble.runs.run_folder import RunFolder

TAUGHT_BELOW_BITS = 4  # distill.teacher=auto: weights of fewer bits lose without a teacher
ABSENT = -1e30  # a logit without probability; finite, since 0 x infinity is NaN


class Teacher:
    """A float transducer that listens to the student's batches.

    Not an `nn.Module`, so it is no part of the student's parameters, of its averages or of its checkpoints.

    Args:
        config: of the student's run.
        path: a float checkpoint, run or bundle. One that the run itself writes later is read when first needed.
        own: whether the run itself writes it.

    Raises:
        UserError: it is not there, not float, or has other labels, mel bins, chunks or encoder width; the text has both
            values.
    """

    def __init__(self, config: Config, path: Path, own: bool) -> None:
        self.config = config
        self.path = path
        self._own = own
        self._loaded = None if own else self._load()

    def teaches(self, precision: Precision) -> bool:
        """Whether a student at `precision` has something to learn: one in float has not, nor one as wide as itself."""
        return precision not in ((Precision.float, Precision.int8) if self._own else (Precision.float,))

    def check_labels(self, tokenizer: Tokenizer) -> None:
        """Raise `UserError` unless the teacher's labels are those of `tokenizer`; those of the own run are."""
        if self._loaded is None:
            return
        theirs, mine = ([*t.pieces(range(t.size))] for t in (self._loaded.tokenizer, tokenizer))
        if len(theirs) != len(mine):
            self._differs("labels", len(theirs), len(mine), "data.tokens and data.vocabulary_size")
        for label, (their, own) in enumerate(zip(theirs, mine, strict=True)):
            if their != own:
                self._differs(f"label {label}", repr(their), repr(own), "training transcripts")

    def losses(
        self, batch: Batch, student: Transducer, logits: Tensor | None, encoded: Tensor, lengths: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted sum of the terms, and each term by name; scalars. Gradients reach the student only.

        Args:
            batch: what the student has heard.
            student: the network that is taught.
            logits: of the student, (B, T', U + 1, V); None if `distill.posterior_weight` is 0.
            encoded: of the student, (B, T', D).
            lengths: encoded lengths, (B,).
        """
        options = self.config.distill
        terms: dict[str, Tensor] = {}
        total = torch.zeros((), device=encoded.device)
        with torch.no_grad(), self._listening(student) as model:
            heard, _ = model.encode(batch.features, batch.feature_lengths)
            shown = model.join(heard, model.predict(batch.labels)) if options.posterior_weight else None
        if options.encoder_weight:
            terms["encoder_match"] = encoder_match(encoded, heard, lengths)
            total = total + options.encoder_weight * terms["encoder_match"]
        if shown is not None:
            assert logits is not None, "distill.posterior_weight needs the logits"
            found, right = collapse(logits, batch.labels), collapse(shown, batch.labels)
            terms["posterior"] = posterior_divergence(found, right, lengths, batch.label_lengths)
            total = total + options.posterior_weight * terms["posterior"]
        return total, terms

    def __deepcopy__(self, memo: dict[int, object]) -> "Teacher":
        """Itself: averaging the weights of a student copies the student, and needs no second teacher."""
        return self

    @contextmanager
    def _listening(self, student: Transducer) -> Iterator[Transducer]:
        """The teacher's network, in eval mode, where the student is."""
        if self._loaded is None:
            self._loaded = self._load()
        yield self._loaded.model.to(next(student.parameters()).device)

    def _load(self) -> Loaded:
        if self._own and not self.path.exists():
            raise UserError(
                f"the teacher of this run is gone: {self.path} held its weights at the end of that phase. "
                "Put that file back, or start a new run with distill.teacher=FLOAT_RUN"
            )
        loaded = load_checkpoint(self.path)
        if self._own:
            set_precision(loaded.model, Precision.float)
        elif loaded.precision is not Precision.float:
            raise UserError(
                f"distill.teacher={self.path} is at {loaded.quant}; give a float run, "
                "or checkpoints/phase_1_float.ckpt of a staged one"
            )
        theirs, mine = loaded.config, self.config
        for option, what in (("mel_bins", "mel bins"), ("kind", "features")):
            if getattr(theirs.features, option) != getattr(mine.features, option):
                values = getattr(theirs.features, option), getattr(mine.features, option)
                self._differs(what, *values, f"features.{option}")
        there, here = (of.features.normalization is Normalization.utterance for of in (theirs, mine))
        if there != here:
            self._differs("normalization by utterance", there, here, "features.normalization")
        # Each of these gives another number of encoded frames.
        for option in ("chunk_frames", "subsampling", "subsampling_factor"):
            if getattr(theirs.model, option) != getattr(mine.model, option):
                values = getattr(theirs.model, option), getattr(mine.model, option)
                what = "frames a chunk" if option == "chunk_frames" else option
                self._differs(what, *values, f"model.{option}")
        if mine.distill.encoder_weight and theirs.model.width != mine.model.width:
            hint = "model.width, or distill.encoder_weight=0"
            self._differs("encoder width", theirs.model.width, mine.model.width, hint)
        loaded.model.requires_grad_(False)
        return loaded

    def _differs(self, what: str, theirs: object, mine: object, hint: str) -> None:
        raise UserError(f"distill.teacher={self.path}: {what} {theirs} there and {mine} here; use the same {hint}")


class FloatBranch(Teacher):
    """The student itself in float, in a run that trains float together with other precisions."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self._own = False
        self._loaded = None

    @contextmanager
    def _listening(self, student: Transducer) -> Iterator[Transducer]:
        with evaluated_at(student, Precision.float):
            yield student


def find_teacher(config: Config) -> Teacher | None:
    """The teacher that `distill.teacher` asks for, None for none.

    Raises:
        UserError: there can be none in this run, or `Teacher` finds it unfit.
    """
    choice, phases = config.distill.teacher, config.schedule.phases
    float_first = len(phases) > 1 and phases[0].precision is Precision.float
    bits = [rule.weight.bits for rule in config.quant.rules if rule.weight is not None]
    together = config.schedule.together
    if choice == "auto":
        low = min(bits, default=TAUGHT_BELOW_BITS) < TAUGHT_BELOW_BITS
        choice = "self" if float_first and low and not together else "none"
    if choice == "none":
        return None
    if choice == "self" and Precision.float in together:
        return FloatBranch(config)
    if not config.quant.rules:
        raise UserError(
            f"distill.teacher={choice}, but quant={config.quant.name} quantizes nothing, so there is nothing to teach; "
            "give another quant=, or leave distill.teacher out"
        )
    if choice != "self":
        return Teacher(config, Path(choice), own=False)
    if not float_first:
        raise UserError(
            f"distill.teacher=self, but the schedule begins with {phases[0].precision.value}: "
            "give schedule=staged, which begins with a float phase, or distill.teacher=FLOAT_RUN"
        )
    return Teacher(config, own_weights(config), own=True)


def own_weights(config: Config) -> Path:
    """The weights at the end of the last phase at 8 bits or more, where `Checkpoints` puts them."""
    wide = list(takewhile(lambda phase: phase.precision in (Precision.float, Precision.int8), config.schedule.phases))
    return RunFolder(Path(config.run_dir)).phase_checkpoint(len(wide), wide[-1].precision.value)


def encoder_match(student: Tensor, teacher: Tensor, lengths: Tensor) -> Tensor:
    """Mean squared difference of two encoders' outputs over valid frames, in variances of the teacher's: a scalar.

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
    loss sums. All nodes alike would teach mostly what no alignment ever asks.

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
