"""Finds and loads the float network that teaches a quantized student."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from itertools import takewhile
from pathlib import Path
from typing import Protocol

from nibble.config import Config
from nibble.data.tokenizer import Tokenizer
from nibble.errors import UserError
from nibble.features.options import Normalization
from nibble.model.options import Predictor
from nibble.model.transducer import Transducer
from nibble.quant.convert import evaluated_at, set_precision
from nibble.quant.spec import Precision
from nibble.runs.checkpoint import load_checkpoint
from nibble.runs.loaded import Loaded
from nibble.runs.run_folder import RunFolder

TAUGHT_BELOW_BITS = 4  # distill.teacher=auto: weights of fewer bits lose without a teacher


class Teacher(Protocol):
    """A float network that hears the student's batches.

    Not an `nn.Module`, so it is no part of the student's parameters, of its averages or of its checkpoints.
    """

    def teaches(self, precision: Precision) -> bool:
        """Whether the teacher adds anything for a student at `precision`."""
        ...

    def check_labels(self, tokenizer: Tokenizer) -> None:
        """Raise `UserError` unless the teacher's labels are those of `tokenizer`."""
        ...

    def listening(self, student: Transducer) -> AbstractContextManager[Transducer]:
        """The teacher's network, in eval mode, on the device of the student."""
        ...


class TrainedTeacher:
    """The float network of a checkpoint.

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
        """Whether a student at `precision` is narrower than the teacher, whose own weights have 8 bits or more."""
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

    @contextmanager
    def listening(self, student: Transducer) -> Iterator[Transducer]:
        """The teacher's network, in eval mode, on the device of the student."""
        if self._loaded is None:
            self._loaded = self._load()
        yield self._loaded.model.to(next(student.parameters()).device)

    def __deepcopy__(self, memo: dict[int, object]) -> "TrainedTeacher":
        """Return itself: averaging the weights of a student copies the student, and needs no second teacher."""
        return self

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


class FloatBranch:
    """The student itself in float, in a run that trains float together with other precisions."""

    def teaches(self, precision: Precision) -> bool:
        """Whether a student at `precision` differs from its float branch."""
        return precision is not Precision.float

    def check_labels(self, tokenizer: Tokenizer) -> None:
        """They are the student's own."""

    @contextmanager
    def listening(self, student: Transducer) -> Iterator[Transducer]:
        """Inside, the student is in eval mode and in float; afterwards it is as before."""
        with evaluated_at(student, Precision.float):
            yield student


def find_teacher(config: Config) -> Teacher | None:
    """The teacher that `distill.teacher` asks for, None for none.

    Raises:
        UserError: there can be none in this run, or `TrainedTeacher` finds it unfit.
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
    no_lattice = "has a CTC head" if config.model.predictor is Predictor.none else "predicts durations"
    if (config.model.predictor is Predictor.none or config.model.durations) and config.distill.posterior_weight:
        raise UserError(
            f"distill.posterior_weight={config.distill.posterior_weight:g} compares lattices of plain transducers, and "
            f"model={config.model.name} {no_lattice}; give distill.posterior_weight=0, or distill.teacher=none"
        )
    if choice == "self" and Precision.float in together:
        return FloatBranch()
    if not config.quant.rules:
        raise UserError(
            f"distill.teacher={choice}, but quant={config.quant.name} quantizes nothing, so there is nothing to teach; "
            "give another quant=, or leave distill.teacher out"
        )
    if choice != "self":
        return TrainedTeacher(config, Path(choice), own=False)
    if not float_first:
        raise UserError(
            f"distill.teacher=self, but the schedule begins with {phases[0].precision.value}: "
            "give schedule=staged, which begins with a float phase, or distill.teacher=FLOAT_RUN"
        )
    return TrainedTeacher(config, own_weights(config), own=True)


def own_weights(config: Config) -> Path:
    """The weights at the end of the last phase at 8 bits or more, where `Checkpoints` puts them."""
    wide = list(takewhile(lambda phase: phase.precision in (Precision.float, Precision.int8), config.schedule.phases))
    return RunFolder(Path(config.run_dir)).phase_checkpoint(len(wide), wide[-1].precision.value)
