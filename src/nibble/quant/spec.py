"""What a tensor becomes. Plain data: no tensor is touched here."""

from dataclasses import dataclass, field
from enum import StrEnum
from itertools import pairwise

from nibble.errors import UserError


class Range(StrEnum):
    """Which integers a b-bit tensor uses, with Q = 2^(b-1) - 1.

    narrow     -Q ... Q, scale = max|x| / Q              int4: -7 ... 7
    full       -Q-1 ... Q, scale = max(max x / Q, -min x / (Q + 1))    int4: -8 ... 7
    half_step  -Q ... Q, scale = max|x| / (Q + 0.5)      int4: -7 ... 7, as AQT
    """

    narrow = "narrow"
    full = "full"
    half_step = "half_step"


class WeightGranularity(StrEnum):
    """How many scales a weight has: one per output channel, or one in all."""

    per_channel = "per_channel"
    per_tensor = "per_tensor"


class ActivationGranularity(StrEnum):
    """How many scales an activation has; never one for a whole batch.

    per_token      one per row of the product. A convolution mixes rows, so there it is per_utterance.
    per_utterance  one per element of the batch, over all its frames.
    """

    per_token = "per_token"
    per_utterance = "per_utterance"


@dataclass
class WeightSpec:
    """Integer weights: width, scales and range."""

    bits: int = 8  # 2 ... 8; 2 is ternary in the narrow range
    granularity: WeightGranularity = WeightGranularity.per_channel
    range: Range = Range.narrow

    def __post_init__(self) -> None:
        _check_bits("weight", self.bits)


@dataclass
class ActivationSpec:
    """Integer activations, scaled dynamically from the tensor itself."""

    bits: int = 8  # 2 ... 8
    granularity: ActivationGranularity = ActivationGranularity.per_token
    range: Range = Range.narrow

    def __post_init__(self) -> None:
        _check_bits("activation", self.bits)


@dataclass
class Rule:
    """Modules whose name matches `match` get these specs. The first matching rule wins.

    `match` is a glob over dotted names: `*` stays within a name part, `**` crosses dots.
    Neither spec means: leave these modules in float.
    """

    match: str = "**"
    weight: WeightSpec | None = None
    activation: ActivationSpec | None = None


class Arithmetic(StrEnum):
    """How a quantized product is computed in the forward pass.

    fake    quantize, dequantize, float product
    native  integer product with int32 accumulation, then one rescale
    """

    fake = "fake"
    native = "native"


class Precision(StrEnum):
    """What a phase of the schedule runs at: float, 8 bits everywhere, or what the rules say."""

    float = "float"
    int8 = "int8"
    rules = "rules"


@dataclass
class Phase:
    """From fraction `at` of training on, run at `precision`.

    `ramp` is the fraction of training over which the weight moves linearly from float to quantized.
    """

    at: float = 0.0
    precision: Precision = Precision.rules
    ramp: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.at < 1:
            raise UserError(f"schedule: a phase starts at {self.at}; give a fraction of training in [0, 1)")
        if not 0 <= self.ramp <= 1 - self.at:
            raise UserError(
                f"schedule: the ramp of the phase at {self.at} is {self.ramp}; it must end by 1, "
                f"so at most {1 - self.at:g}"
            )


@dataclass
class QuantConfig:
    """`quant=`: which modules get how many bits, and with which arithmetic."""

    name: str = "float"
    rules: list[Rule] = field(default_factory=list)  # no rules: a float run
    arithmetic: Arithmetic = Arithmetic.native


@dataclass
class ScheduleConfig:
    """`schedule=`: when. Phases in order; the first starts at 0."""

    phases: list[Phase] = field(default_factory=lambda: [Phase()])

    def __post_init__(self) -> None:
        starts = [phase.at for phase in self.phases]
        if not starts or starts[0] != 0 or any(a >= b for a, b in pairwise(starts)):
            raise UserError(f"schedule.phases: starts are {starts}; they must begin with 0 and increase")


def _check_bits(what: str, bits: int) -> None:
    if not 2 <= bits <= 8:
        raise UserError(f"{what} bits is {bits}; give 2 to 8")
