"""The options of `python -m nibble.sensitivity`."""

import re
from dataclasses import dataclass, field
from enum import StrEnum

from omegaconf import MISSING

from nibble.data.options import DataOverrides
from nibble.errors import UserError
from nibble.hardware import HardwareConfig
from nibble.quant.spec import QuantConfig
from nibble.ranges import COUNT, POSITIVE, Range, check


class DamageMethod(StrEnum):
    """How the damage of a layer at few bits is determined."""

    loss = "loss"  # measured: the rise of the loss when only that layer is quantized
    fisher = "fisher"  # estimated from one pass of gradients; ignores activations


class SensitivityPart(StrEnum):
    """The speech that damage is measured on; use dev only if its error rates are not reported afterwards."""

    train = "train"
    dev = "dev"


@dataclass
class SensitivityConfig:
    """`python -m nibble.sensitivity`: the damage of fewer bits to each layer, and the best bits within a budget."""

    checkpoint: str | None = None  # a run folder or a .ckpt with float weights
    bits: list[int] = field(default_factory=lambda: [2, 4, 8])  # the choices for each layer's weights
    average_bits: float | None = None  # budget: mean bits of the quantized weights, scales left out
    target_bytes: int | None = None  # budget: size of the whole bundle; without a budget nothing is assigned
    max_rtf: float | None = None  # budget for a system of a run with model.sizes or schedule=together
    max_memory_bytes: int | None = None  # the same: in use while recognising
    method: DamageMethod = DamageMethod.loss
    part: SensitivityPart = SensitivityPart.train  # without augmentation; noise at the level of dev
    max_utterances: int = 200  # evenly spread over the part
    noise: list[float] = field(default_factory=list)  # errors of analog layers by type instead, at these levels
    draws: int = 5  # of each level of noise
    quant: QuantConfig | None = None  # with noise: analog, for a float checkpoint; null: as trained
    name: str = "mixed"  # of the rules that are written: use them with quant=<name>
    output: str | None = None  # null: conf/quant/<name>.yaml
    plot: str = MISSING  # a picture of layers against bits
    data: DataOverrides = field(default_factory=DataOverrides)
    hardware: HardwareConfig = MISSING

    def __post_init__(self) -> None:
        if not self.checkpoint:
            raise UserError("give checkpoint=RUN: a run folder or a .ckpt file with float weights")
        if self.average_bits is not None and self.target_bytes is not None:
            raise UserError(
                f"average_bits={self.average_bits:g} and target_bytes={self.target_bytes} are two budgets; give one"
            )
        if len(set(self.bits)) < 2 or not all(1 <= bits <= 8 for bits in self.bits):
            raise UserError(f"bits={self.bits}; give at least two widths from 1 to 8, such as [2,4,8]")
        check(self, "", max_utterances=COUNT, draws=COUNT, average_bits=Range(1, 8), noise=Range(0))
        check(self, "", max_rtf=POSITIVE, **dict.fromkeys(("target_bytes", "max_memory_bytes"), Range(1, 2**63)))
        if self.quant is not None and not self.noise:
            raise UserError(f"quant={self.quant.name} is for noise=[…]; layers are compared at bits={self.bits}")
        if not re.fullmatch(r"[\w-]+", self.name):
            raise UserError(f"name={self.name} becomes a file and an option: give letters, digits, _ and - only")
        self.bits = sorted(set(self.bits))
