"""The options of `python -m nibble.quantize`."""

from dataclasses import dataclass, field
from enum import StrEnum

from omegaconf import MISSING

from nibble.data.options import DataOverrides
from nibble.errors import UserError
from nibble.hardware import HardwareConfig
from nibble.quant.spec import QuantConfig
from nibble.ranges import COUNT_OR_NONE, SEED, check


class Rounding(StrEnum):
    """How the weights of a float model are rounded without training."""

    nearest = "nearest"
    gptq = "gptq"  # the outputs of each layer change least on calibration speech (Frantar et al., 2022)


@dataclass
class QuantizeConfig:
    """`python -m nibble.quantize`: turns a float model into a bundle of fewer bits."""

    checkpoint: str | None = None  # a run folder, a .ckpt or a bundle, with float weights
    quant: QuantConfig = MISSING
    rounding: Rounding = Rounding.nearest
    calibration_utterances: int = 128  # drawn from the training speech, for gptq and static activation scales
    seed: int = 1  # of that draw
    size: str | None = None  # of a run with model.sizes, the smaller network to take; null: the whole network
    output: str | None = None  # null: in the run folder, named after what was chosen, such as bundle_int4_gptq
    data: DataOverrides = field(default_factory=DataOverrides)
    hardware: HardwareConfig = MISSING

    def __post_init__(self) -> None:
        if not self.checkpoint:
            raise UserError("give checkpoint=RUN: a run folder, a .ckpt file or a bundle with float weights")
        if not self.quant.rules and not self.quant.low_rank:
            raise UserError(f"quant={self.quant.name} has no rules, so nothing would change; give quant=int4 or so")
        check(self, "", seed=SEED, calibration_utterances=COUNT_OR_NONE)
        if self.needs_speech and self.calibration_utterances < 1:
            what = "rounding=gptq needs" if self.rounding is Rounding.gptq else "static activation scales need"
            raise UserError(f"calibration_utterances={self.calibration_utterances}, but {what} speech; 128 is enough")

    @property
    def needs_speech(self) -> bool:
        """Whether anything is calibrated."""
        static = any(rule.activation is not None and rule.activation.static for rule in self.quant.rules)
        return static or self.rounding is Rounding.gptq
