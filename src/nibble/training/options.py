"""The options of training: `loss=`, `distill`, `optimizer=`, `logger=`, `trainer=`."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from omegaconf import MISSING

from nibble.errors import UserError
from nibble.ranges import COUNT, COUNT_OR_NONE, POSITIVE, Range, check


@dataclass
class LossConfig:
    """`loss=`: the transducer loss (Graves, 2012), with CTC on the encoder as a training aid."""

    ctc_weight: float = 0.0  # 0 for none; the CTC layer exists in training only
    fused: bool = True  # the joiner a few utterances at a time; false: torchaudio's loss, of all logits at once
    norm_decay: float = 0.0  # times the sum of max|w| / rms(w) of quantized weights (RAND, arXiv:2305.15536); 0: none

    def __post_init__(self) -> None:
        check(self, "loss.", ctc_weight=Range(0), norm_decay=Range(0))


@dataclass
class DistillConfig:
    """`distill`: a float teacher whose encoder and lattice a quantized model learns to match (training only).

    The teacher hears the same batches; phases in float have none.
    """

    # none; self: this run at the end of its last phase at 8 bits or more, or where it trains float together with other
    # precisions, its float branch at each step; a float checkpoint, run or bundle of the same labels;
    # auto: self if a rule has weights of less than 4 bits and the schedule goes from float down to them, else none
    teacher: str = "auto"
    encoder_weight: float = 1.0  # of the squared difference of encoder outputs, in variances of the teacher's
    posterior_weight: float = 1.0  # of the divergence of the label distributions along alignments, in nats per label

    def __post_init__(self) -> None:
        check(self, "distill.", encoder_weight=Range(0), posterior_weight=Range(0))
        if self.encoder_weight == self.posterior_weight == 0 and self.teacher != "none":
            raise UserError(
                f"distill.teacher={self.teacher} with distill.encoder_weight=0 and distill.posterior_weight=0 "
                "teaches nothing; give one a weight, or distill.teacher=none"
            )


class LearningRateSchedule(StrEnum):
    """How the learning rate changes after a linear warm-up."""

    cosine = "cosine"  # to zero at the last step
    noam = "noam"  # as 1 / sqrt(step) (Vaswani et al., 2017)


@dataclass
class OptimizerConfig:
    """`optimizer=`: AdamW."""

    learning_rate: float = MISSING  # at the end of warm-up
    betas: list[float] = field(default_factory=lambda: [0.9, 0.98])  # decay of the two moments
    weight_decay: float = 0.01  # of matrices; decoupled from the gradient
    schedule: LearningRateSchedule = LearningRateSchedule.cosine
    warmup_steps: int = MISSING  # from 0 to the learning rate, linearly
    layer_decay: float = 1.0  # learning rate of an encoder block, times that of the one above it; 1: the same for all
    frozen_encoder_steps: int = 0  # first steps in which the encoder stays as it is, for labels that are new to it

    def __post_init__(self) -> None:
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise UserError(f"optimizer.betas={self.betas}; give two, each at least 0 and less than 1: [0.9, 0.98]")
        counts = dict.fromkeys(("warmup_steps", "frozen_encoder_steps"), COUNT_OR_NONE)
        layer_decay = Range(0, 1, open_below=True)
        check(self, "optimizer.", learning_rate=POSITIVE, weight_decay=Range(0), layer_decay=layer_decay, **counts)


class WandbMode(StrEnum):
    """Online needs an account; offline writes files that `wandb sync` sends later."""

    offline = "offline"
    online = "online"


@dataclass
class LoggerConfig:
    """`logger=`: where curves are written; several at once are possible."""

    csv: bool = True  # csv/metrics.csv in the run folder
    wandb: bool = False  # Weights & Biases
    tensorboard: bool = False  # needs pip install -e .[tensorboard]
    wandb_mode: WandbMode = WandbMode.offline
    wandb_project: str = "nibble"  # made on first use
    others: dict[str, Any] = field(default_factory=dict)  # name -> the class of a logger in _target_, and its arguments


@dataclass
class TrainerConfig:
    """`trainer=`: how long, how often, and what is kept."""

    max_epochs: int = 20  # passes over the training speech
    max_steps: int | None = None  # optimizer steps; overrides max_epochs
    accumulate: int = 1  # batches a step
    gradient_clip: float = 5.0  # largest gradient norm
    ema_decay: float | None = None  # exponential moving average of the weights, such as 0.999; null: none
    validate_every_steps: int | None = None  # null: once an epoch
    checkpoint_every_steps: int | None = None  # null: at each validation
    early_stop_patience: int | None = None  # validations without a better WER; null: never
    max_validation_utterances: int | None = None  # null: the whole dev part
    log_every_steps: int = 10  # losses, learning rate and speed
    log_layers_every_steps: int = 100  # quantization statistics of each layer; 0: never
    profile: bool = False  # debug: print where time goes

    def __post_init__(self) -> None:
        counts = ("max_epochs", "max_steps", "accumulate", "validate_every_steps", "checkpoint_every_steps")
        more = ("early_stop_patience", "max_validation_utterances", "log_every_steps")
        check(
            self,
            "trainer.",
            **dict.fromkeys((*counts, *more), COUNT),
            gradient_clip=POSITIVE,
            ema_decay=Range(0, 0.99999),
            log_layers_every_steps=COUNT_OR_NONE,
        )
