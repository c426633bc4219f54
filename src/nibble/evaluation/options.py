"""The options of `python evaluate.py`."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from omegaconf import MISSING

from nibble.data.options import Condition, DataOverrides
from nibble.errors import UserError
from nibble.hardware import HardwareConfig
from nibble.quant.spec import QuantConfig
from nibble.ranges import COUNT, COUNT_OR_NONE, Range, check

_ALL = "all"


class Backend(StrEnum):
    """What computes."""

    torch = "torch"
    bundle = "bundle"  # torch, on the integers of a bundle: of a run, those in its folder bundle/
    onnx = "onnx"  # ONNX Runtime on an exported folder, with the search of this project
    sherpa = "sherpa"  # sherpa-onnx on an exported folder: its features, and its search of one label a frame at most

    @property
    def reads_export(self) -> bool:
        """Whether it runs what `python -m nibble.export` wrote, and no checkpoint."""
        return self in (Backend.onnx, Backend.sherpa)


class Search(StrEnum):
    """The search for labels in the network's output."""

    greedy = "greedy"
    beam = "beam"  # `beam_width` hypotheses at once


class Ignored(StrEnum):
    """What scoring can ignore."""

    case = "case"
    punctuation = "punctuation"


@dataclass
class EvaluateConfig:
    """`python evaluate.py`: which models, on which speech, with which search."""

    checkpoint: Any = None  # a run folder, a .ckpt, a bundle or (backend onnx, sherpa) an exported folder; or a list
    backend: Backend = Backend.torch
    experiment: str | None = None  # instead of checkpoint: the run of this experiment that was trained last
    part: Any = None  # dev, test, or names of parts; one or a list; null: dev
    by: Any = None  # error rates of groups: length, speaker, language or any field of the corpus; one or a list
    condition: Any = None  # how the speech is changed: names, one or a list, or all; null: unchanged
    ignore: Any = None  # what scoring ignores: case, punctuation or [case,punctuation]
    size: str | None = None  # of a run with model.sizes, the smaller network to take; null: the whole network
    quant: QuantConfig | None = None  # quantize float checkpoints without training; null: as trained
    decoding: Search = Search.greedy
    beam_width: int = 8  # decoding=beam: hypotheses at once
    max_utterances: int | None = None  # null: all
    worst: int = 5  # utterances with most errors to show
    draws: int = 1  # of the noise of analog weights (quant=analog): the model is evaluated with each
    records: str | None = "runs/records.jsonl"  # a line is added there for each model; null: nowhere
    data: DataOverrides = field(default_factory=DataOverrides)
    hardware: HardwareConfig = MISSING

    def __post_init__(self) -> None:
        if bool(self.checkpoints) == (self.experiment is not None):
            raise UserError(
                "give either checkpoint=RUN, checkpoint=[RUN,RUN] (run folders, .ckpt files or bundles), "
                "or experiment=NAME for its latest run"
            )
        if self.backend.reads_export and (self.experiment or self.size or self.quant is not None):
            raise UserError(
                f"backend={self.backend.value} measures an exported folder as it is; "
                "give checkpoint=FOLDER from python -m nibble.export, and leave experiment=, size= and quant= out"
            )
        for one in self.ignored:
            if one not in set(Ignored):
                raise UserError(f"ignore={one}; give one or both of [{','.join(Ignored)}]")
        for one in _strings("condition", self.condition):
            if one not in (*Condition, _ALL):
                raise UserError(f"condition={one}; give all, or some of [{','.join(Condition)}]")
        check(self, "", beam_width=Range(1, 1_000), max_utterances=COUNT, worst=COUNT_OR_NONE, draws=COUNT)

    @property
    def checkpoints(self) -> list[str]:
        """`checkpoint` as a list, empty if it is null."""
        return _strings("checkpoint", self.checkpoint)

    @property
    def parts(self) -> list[str]:
        """`part` as a list."""
        return _strings("part", self.part) or ["dev"]

    @property
    def groups(self) -> list[str]:
        """`by` as a list, with length in any case: quantized recognisers fail on long utterances first."""
        return list(dict.fromkeys(["length", *_strings("by", self.by)]))

    @property
    def conditions(self) -> list[Condition]:
        """`condition` as a list."""
        names = _strings("condition", self.condition) or [Condition.unchanged]
        return list(Condition) if _ALL in names else [Condition(name) for name in names]

    @property
    def ignored(self) -> list[str]:
        """`ignore` as a list."""
        return _strings("ignore", self.ignore)


def _strings(option: str, value: Any) -> list[str]:
    if value is None:
        return []
    values = value if isinstance(value, list) else [value]
    if not all(isinstance(one, str) and one for one in values):
        raise UserError(f"{option}={value}; give a name, or several as [first,second]")
    return values
