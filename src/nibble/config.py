"""The options of one training run, put together from those of the rooms, and as plain data for its files."""

from dataclasses import dataclass, field, fields, replace
from typing import Any

from omegaconf import MISSING, OmegaConf

from nibble.data.options import DataConfig, DataOverrides, NoiseOverrides
from nibble.errors import UserError
from nibble.features.options import FeatureConfig, Normalization
from nibble.hardware import HardwareConfig
from nibble.model.options import ModelConfig, Predictor
from nibble.plain import build
from nibble.quant.spec import QuantConfig, ScheduleConfig
from nibble.ranges import SEED, check
from nibble.training.options import DistillConfig, LoggerConfig, LossConfig, OptimizerConfig, TrainerConfig


@dataclass
class Config:
    """One training run."""

    name: str = "default"  # of the experiment; a part of the run folder and of the record
    seed: int = 1  # of weights, order and augmentation
    run_dir: str = MISSING  # Hydra sets it: give hydra.run.dir=DIR instead
    # a run folder or checkpoint to go on from, exactly; true: the run of these options, wherever it stands: if complete
    # it is left as it is, if stopped it goes on, if not there it starts
    resume: str | None = None
    # a checkpoint to take the weights from: a run, a bundle, or another toolkit's (.nemo, Parakeet, icefall), whose
    # model, features and labels are taken too
    init_from: str | None = None
    origin: str | None = None  # of weights that were imported: source and licence, for the card
    records: str | None = "runs/records.jsonl"  # where the evaluation at the end is added; null: nowhere
    data: DataConfig = MISSING
    features: FeatureConfig = MISSING
    model: ModelConfig = MISSING
    loss: LossConfig = MISSING
    quant: QuantConfig = MISSING
    schedule: ScheduleConfig = MISSING
    distill: DistillConfig = field(default_factory=DistillConfig)
    optimizer: OptimizerConfig = MISSING
    hardware: HardwareConfig = MISSING
    logger: LoggerConfig = MISSING
    trainer: TrainerConfig = MISSING
    # of your own, by a name: the class in _target_, and its arguments; conf/callbacks and conf/metrics have examples
    callbacks: dict[str, Any] = field(default_factory=dict)  # Lightning's callbacks
    metrics: dict[str, Any] = field(default_factory=dict)  # torchmetrics of texts, logged as val_<name>

    def __post_init__(self) -> None:
        check(self, "", seed=SEED)
        if self.model.chunk_frames is not None and self.features.normalization is Normalization.utterance:
            raise UserError(
                f"features.normalization=utterance needs the whole utterance, and model.chunk_frames="
                f"{self.model.chunk_frames} streams; give features.normalization=corpus or none"
            )
        if self.model.predictor is Predictor.none and self.loss.ctc_weight:
            raise UserError(
                f"loss.ctc_weight={self.loss.ctc_weight:g} is of CTC beside a transducer, and model={self.model.name} "
                "is trained with CTC alone; give loss=rnnt, or another model.predictor"
            )
        if self.model.durations and not self.loss.fused:
            raise UserError(
                f"loss.fused=false is torchaudio's loss, which knows no durations, and model.max_duration_frames="
                f"{self.model.max_duration_frames}; leave loss.fused out, or the durations"
            )
        if self.model.sizes:
            self._check_sizes()
        if self.resume in ("False", "false"):  # the text that resume=false becomes
            self.resume = None

    def _check_sizes(self) -> None:
        """The first rows and columns of a weight must be all that a smaller size needs."""
        if self.quant.low_rank:
            raise UserError(
                f"quant={self.quant.name} makes each matrix a product of two, whose corners are not the corner of the "
                "product; leave model.sizes or quant.low_rank out"
            )
        grouped = [rule.weight for rule in self.quant.rules if rule.weight is not None and rule.weight.group_size]
        if any(weight.learned for weight in grouped):
            raise UserError(
                f"quant={self.quant.name} learns scales of groups, which smaller sizes cannot share; "
                "leave model.sizes, group_size or learned out"
            )

    @property
    def has_ctc(self) -> bool:
        """Whether CTC is a term of the loss, or all of it."""
        return self.loss.ctc_weight > 0 or self.model.predictor is Predictor.none

    @property
    def resumes_itself(self) -> bool:
        """Whether it goes on with the run of its own options."""
        return self.resume in ("True", "true")


def overridden(run: Config, overrides: DataOverrides) -> Config:
    """The configuration of a run with what evaluation changes of its data."""
    noise = replace(run.data.noise, **_given(overrides.noise))
    return replace(run, data=replace(run.data, **{**_given(overrides), "noise": noise}))


def _given(overrides: NoiseOverrides | DataOverrides) -> dict[str, Any]:
    """The options that aren't null."""
    return {f.name: value for f in fields(overrides) if (value := getattr(overrides, f.name)) is not None}


def plain(run: Config) -> dict[str, Any]:
    """The configuration as dictionaries, lists, numbers and strings, for a checkpoint or JSON."""
    container = OmegaConf.to_container(OmegaConf.structured(run), enum_to_str=True)
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}


def portable(run: Config) -> Config:
    """The configuration for files that others get: without where the run lives, and without classes of the user's."""
    logger = replace(run.logger, others={})
    return replace(run, run_dir="", resume=None, records=None, callbacks={}, metrics={}, logger=logger)


def from_plain(values: dict[str, Any]) -> Config:
    """The inverse of `plain`; unknown options and wrong types raise `UserError`."""
    try:
        return build(Config, values)
    except UserError as error:
        raise UserError(f"this configuration is not of this version of nibble: {error}") from error
