"""The options of a layer whose weights are conductances of an analog memory: `quant=analog`."""

from dataclasses import dataclass, field

from nibble.errors import UserError
from nibble.ranges import COUNT, POSITIVE, Range, check


@dataclass
class AnalogSpec:
    """A layer's product on tiles of phase-change memory, simulated; `nibble.quant.analog` has the equations.

    The defaults are published. Noise of programming and reading, and drift: Nandakumar et al. (2019, ICECS) and Joshi
    et al. (2020, Nature Communications 11, 2473), as IBM's aihwkit has them. Converters and noise of outputs: Rasch et
    al. (2023, Nature Communications 14, 5282), as in aihwkit's StandardHWATrainingPreset. Tiles of 512 rows: Ambrogio
    et al. (2023, Nature 620, 768).
    """

    noise: float = 1.0  # multiplies the noise of programming and reading; 0: exact weights
    training_noise: float = 3.0  # in its place in training, for that of programming alone; our choice
    # Standard deviation of programming at conductance g, as a share of the tile's largest: c0 + c1 g + c2 g^2.
    programming: list[float] = field(default_factory=lambda: [0.0105, 0.0786, -0.0469])
    drift: float = 1.0  # multiplies the exponents of drift; 0: no drift
    after_s: float = 3600.0  # seconds between programming and use, over which weights drift
    tile: int = 512  # rows and columns of a tile
    output_bits: int = 8  # of the converter of a tile's outputs; its inputs have those of the rule's activation
    output_bound: float = 10.0  # where it clips, in products of a tile's largest weight and the row's largest input
    output_noise: float = 0.04  # standard deviation before it, in the same unit

    def __post_init__(self) -> None:
        if len(self.programming) != 3:
            raise UserError(f"analog.programming={self.programming}; give three numbers, c0, c1 and c2")
        names = ("noise", "training_noise", "drift", "after_s", "output_noise")
        check(self, "analog.", tile=COUNT, output_bits=Range(2, 8), output_bound=POSITIVE, programming=Range(-10, 10))
        check(self, "analog.", **dict.fromkeys(names, Range(0)))
