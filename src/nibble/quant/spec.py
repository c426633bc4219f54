"""How tensors are quantized and when: specs, rules and schedules, as plain data."""

from dataclasses import dataclass, field
from enum import StrEnum
from itertools import pairwise

from nibble.errors import UserError
from nibble.quant.analog_spec import AnalogSpec


class Range(StrEnum):
    """The integers that a b-bit tensor uses, with Q = 2^(b-1) - 1.

    narrow     -Q ... Q, scale = max|x| / Q              int4: -7 ... 7
    full       -Q-1 ... Q, scale = max(max x / Q, -min x / (Q + 1))    int4: -8 ... 7
    half_step  -Q ... Q, scale = max|x| / (Q + 0.5)      int4: -7 ... 7, as AQT
    """

    narrow = "narrow"
    full = "full"
    half_step = "half_step"


class WeightGranularity(StrEnum):
    """Whether a weight has one scale per output channel, or one in all."""

    per_channel = "per_channel"
    per_tensor = "per_tensor"


class ActivationGranularity(StrEnum):
    """How many scales an activation has; never one for a whole batch.

    per_token      one per row of the product. A convolution mixes rows, so there it is per_utterance.
    per_utterance  one per element of the batch, over all its frames.
    """

    per_token = "per_token"
    per_utterance = "per_utterance"


class WeightScale(StrEnum):
    """How a weight's scale is computed.

    absmax  max|w| / Q: nothing is clipped
    mean    mean|w|, for 1 and 2 bits (Rastegari et al., 2016; Ma et al., 2024, absmean); larger weights are clipped
    search  of the absmax scale's multiples by 1.0, 0.95 ... 0.2, the one with the least squared error
    """

    absmax = "absmax"
    mean = "mean"
    search = "search"


@dataclass
class WeightSpec:
    """Integer weights: width, scales and range."""

    bits: int = 8  # 1 ... 8; 2 is ternary in the narrow range, 1 is the sign
    granularity: WeightGranularity = WeightGranularity.per_channel
    group_size: int | None = None  # per_channel: this many weights along K share a scale; null: all K
    range: Range = Range.narrow
    symmetric: bool = True  # false: up to 7 bits, each slice has a zero point, and all 2^b codes between min and max
    scale: WeightScale | None = None  # null: absmax, and for 1 bit mean
    learned: bool = False  # multiply the scale by e^p and train p, which starts at 0 (Esser et al., 2020, LSQ)

    def __post_init__(self) -> None:
        if not 1 <= self.bits <= 8:
            raise UserError(f"weight bits is {self.bits}; give 1 to 8")
        if self.group_size is not None and not 1 <= self.group_size < 2**31:
            raise UserError(f"weight group_size is {self.group_size}; give 1 or more, or null for one scale a channel")
        if self.group_size is not None and self.granularity is not WeightGranularity.per_channel:
            raise UserError(f"weight group_size={self.group_size} needs granularity=per_channel")
        if self.scale is WeightScale.mean and self.bits > 2:
            raise UserError(f"weight scale=mean is for 1 and 2 bits, not {self.bits}; give absmax or search")
        if self.bits == 1 and self.scale not in (None, WeightScale.mean):
            raise UserError(f"weight scale={self.scale.value} has no meaning at 1 bit; give mean, or null")
        if self.bits == 1 and self.range is not Range.narrow:
            raise UserError(f"weight range={self.range.value} has no meaning at 1 bit; give narrow")
        if not self.symmetric:
            self._check_asymmetric()

    def _check_asymmetric(self) -> None:
        if not 2 <= self.bits <= 7:
            raise UserError(
                f"weight symmetric=false at {self.bits} bits: codes less their zero point must fit int8, and 1 bit is "
                "a sign; give 2 to 7 bits"
            )
        if self.scale not in (None, WeightScale.absmax) or self.range is not Range.narrow:
            raise UserError("weight symmetric=false spans min to max with all codes; leave scale and range out")

    @property
    def scale_rule(self) -> WeightScale:
        """`scale`, or the default of this width."""
        if self.scale is not None:
            return self.scale
        return WeightScale.absmax if self.bits > 1 else WeightScale.mean


@dataclass
class ActivationSpec:
    """Integer activations. Dynamic scales come from the tensor itself, static ones from training or calibration."""

    bits: int = 8  # 2 ... 8
    granularity: ActivationGranularity = ActivationGranularity.per_token
    range: Range = Range.narrow
    static: bool = False  # one scale a layer, from a moving average of max|x|; excludes granularity

    def __post_init__(self) -> None:
        if not 2 <= self.bits <= 8:
            raise UserError(f"activation bits is {self.bits}; give 2 to 8")


@dataclass
class Sparsity:
    """N:M pruning: of each `of` successive weights along K, the `keep` largest magnitudes stay."""

    keep: int = 2  # weights that stay
    of: int = 4  # successive weights along K

    def __post_init__(self) -> None:
        if not 1 <= self.keep < self.of <= 16:
            raise UserError(f"sparsity keeps {self.keep} of {self.of}; give 1 <= keep < of <= 16, such as 2 of 4")


@dataclass
class Rule:
    """Modules whose name matches `match` get these specs. The first matching rule wins.

    `match` is a glob over dotted names: `*` stays within a name part, `**` crosses dots. Several have `|` in between.
    No spec at all means: leave these modules in float.
    """

    match: str = "**"  # `*` stays within a part of a dotted name, `**` crosses dots, `|` is or
    weight: WeightSpec | None = None  # null: float weights
    activation: ActivationSpec | None = None  # null: float activations
    sparsity: Sparsity | None = None  # null: dense
    analog: AnalogSpec | None = None  # in place of weight: conductances of an analog memory, simulated

    def __post_init__(self) -> None:
        if self.sparsity is not None and self.weight is not None and self.weight.bits == 1:
            raise UserError(
                f"match={self.match!r}: 1 bit has no code for a pruned weight; give sparsity 2 bits or more"
            )
        if self.analog is not None and (self.weight is not None or self.sparsity is not None):
            raise UserError(f"match={self.match!r}: analog weights have no codes; leave weight and sparsity out")

    @property
    def is_float(self) -> bool:
        """Whether the modules stay as they are."""
        return self.weight is None and self.activation is None and self.sparsity is None and self.analog is None


class Arithmetic(StrEnum):
    """How a quantized product is computed in the forward pass.

    fake    quantize, dequantize, float product
    native  integer product with int32 accumulation, then one rescale
    noise   training: noise of a step's width in place of the rounding of weights, float product; evaluation: native
    """

    fake = "fake"
    native = "native"
    noise = "noise"


class Precision(StrEnum):
    """The precision of a phase of the schedule: float, that of the rules, or the rules with weights of other bits.

    At int8 the activations have 8 bits too; at int4 to int1 they have the bits of the rules.
    """

    float = "float"
    int8 = "int8"
    int4 = "int4"
    int3 = "int3"
    int2 = "int2"
    int1 = "int1"
    rules = "rules"


@dataclass
class Phase:
    """From fraction `at` of training on, run at `precision`.

    `ramp` is the fraction of training over which the weight moves linearly from float to quantized.
    """

    at: float = 0.0  # fraction of training
    precision: Precision = Precision.rules
    ramp: float = 0.0  # fraction of training, from `at` on
    together: list[Precision] = field(default_factory=list)  # each step draws one of them; `precision` is the result's
    freeze_norms: bool = False  # batch norms keep their running statistics, and normalise with them
    freeze_scales: bool = False  # learned weight scales and static activation scales stay as they are

    def __post_init__(self) -> None:
        if not 0 <= self.at < 1:
            raise UserError(f"schedule: a phase starts at {self.at}; give a fraction of training in [0, 1)")
        if not 0 <= self.ramp <= 1 - self.at:
            raise UserError(
                f"schedule: the ramp of the phase at {self.at} is {self.ramp}; it must end by 1, "
                f"so at most {1 - self.at:g}"
            )
        if self.together and self.precision not in self.together:
            names = ", ".join(precision.value for precision in self.together)
            raise UserError(
                f"schedule: the phase at {self.at:g} trains {names} together and ends at precision "
                f"{self.precision.value}, which is none of them; add it to together, or end at one of them"
            )
        if self.together and self.ramp:
            raise UserError(f"schedule: the phase at {self.at:g} has together and a ramp; leave one of both out")


@dataclass
class LowRank:
    """Each `nn.Linear` (N, K) that `match` names becomes two of rank r: (r, K) and (N, r). The first match wins.

    r is a share of the full rank, rounded down, so that one rule holds for every size of model. It must save
    parameters, r (N + K) < N K: any share below 1/2 does.
    """

    match: str  # as in rules
    share: float = 0.5  # r / min(N, K)

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise UserError(f"low_rank match={self.match!r}: share is {self.share}; give more than 0 and less than 1")


@dataclass
class QuantConfig:
    """`quant=`: which modules get how many bits, and with which arithmetic."""

    name: str = "float"  # in records
    rules: list[Rule] = field(default_factory=list)  # none: weights stay in float
    arithmetic: Arithmetic = Arithmetic.native
    low_rank: list[LowRank] = field(default_factory=list)  # applied first; rules match `<layer>.first` and `.second`
    group_size: int | None = None  # of quant=int4_grouped: this many weights along K share a scale
    analog: AnalogSpec | None = None  # of quant=analog: what its rules refer to

    def __post_init__(self) -> None:
        in_rules = [rule.weight.group_size for rule in self.rules if rule.weight is not None]
        if self.group_size is not None and self.group_size not in in_rules:
            raise UserError(
                f"quant.group_size={self.group_size}: no rule of quant={self.name} uses it; give quant=int4_grouped, "
                "or rules with group_size"
            )
        if self.analog is not None and self.analog not in [rule.analog for rule in self.rules]:
            raise UserError(
                f"quant.analog: no rule of quant={self.name} uses it; give quant=analog, or rules with analog"
            )


@dataclass
class PruneSchedule:
    """When the masks of rules with `sparsity` are drawn; at precision float they are not applied."""

    at: float = 0.5  # fraction of training before which nothing is pruned
    fixed_at: float = 0.8  # fraction from which the masks stay; until then they follow the weights
    every_steps: int = 20  # between two masks

    def __post_init__(self) -> None:
        if not 0 <= self.at <= self.fixed_at <= 1:
            raise UserError(f"schedule.prune: at={self.at}, fixed_at={self.fixed_at}; give 0 <= at <= fixed_at <= 1")
        if not 1 <= self.every_steps < 2**31:
            raise UserError(f"schedule.prune.every_steps={self.every_steps}; give at least 1")


@dataclass
class ScheduleConfig:
    """`schedule=`: when. Phases in order; the first starts at 0."""

    phases: list[Phase] = field(default_factory=lambda: [Phase()])  # in order
    prune: PruneSchedule = field(default_factory=PruneSchedule)

    def __post_init__(self) -> None:
        starts = [phase.at for phase in self.phases]
        if not starts or starts[0] != 0 or any(a >= b for a, b in pairwise(starts)):
            raise UserError(f"schedule.phases: starts are {starts}; they must begin with 0 and increase")

    @property
    def together(self) -> list[Precision]:
        """Every precision that some phase trains together with others."""
        return sorted({precision for phase in self.phases for precision in phase.together})
