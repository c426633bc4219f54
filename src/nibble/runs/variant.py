"""Names the folder in which a command writes a model that it takes from a checkpoint: one rule for all of them."""

from dataclasses import dataclass
from pathlib import Path

from nibble.runs.run_folder import RunFolder


@dataclass(frozen=True)
class Variant:
    """A model taken from a checkpoint, and the folders for it in the checkpoint's run.

    The names of all such folders follow one rule. They say, in this order, with "_" between:

        KIND        bundle or sherpa
        CHECKPOINT  X, if the checkpoint is named bundle_X or phase_2_X.ckpt
        SIZE        of `model.sizes`, if one was chosen
        PRECISION   as records name it, if it or a size was chosen
        ROUNDING    nearest or gptq, if the weights were rounded without training
        ENCODING    of the ONNX files; exports alone have one

        bundle                      the whole network, as the run trained it last
        sherpa_w4a8                 the same, exported
        bundle_small_int4           the size `small` at int4
        sherpa_small_int4_w4a8      the same, exported
        bundle_int4_gptq            the whole network, rounded to int4
        sherpa_int4_gptq_w4a8       exported from bundle_int4_gptq
        sherpa_int8_w8a8            exported from checkpoints/phase_2_int8.ckpt

    So different models of a run have different folders, and a name without a precision is of the run's last one.

    Attributes:
        checkpoint: the file or bundle that the model comes from.
        size: the name of a smaller network; None: the whole network.
        precision: the name of the one that was chosen, which a size needs; None: that of the checkpoint.
        rounding: how the weights were rounded without training; None: they are those of the checkpoint.
    """

    checkpoint: Path
    size: str | None = None
    precision: str | None = None
    rounding: str | None = None

    def __post_init__(self) -> None:
        assert self.size is None or self.precision is not None, "a size is trained at several precisions"

    @property
    def bundle(self) -> Path:
        """The folder of its bundle."""
        return self._folder("bundle")

    def exported(self, encoding: str) -> Path:
        """The folder of its export for sherpa-onnx and ONNX Runtime."""
        return self._folder("sherpa", encoding)

    def _folder(self, kind: str, *encoding: str) -> Path:
        chosen = (_said_by(self.checkpoint), self.size, self.precision, self.rounding)
        return RunFolder.of(self.checkpoint).path / "_".join([kind, *filter(None, chosen), *encoding])


def _said_by(checkpoint: Path) -> str:
    """X of bundle_X and of phase_2_X.ckpt; empty for others."""
    kind, _, said = checkpoint.name.removesuffix(".ckpt").partition("_")
    return {"bundle": said, "phase": said.partition("_")[2]}.get(kind, "")
