"""How large a model is on disk, and what of it is not integers."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

from nibble.quant.rules import coverage, quantized_share
from nibble.quant.spec import Precision
from nibble.runs.bundle import bundle_bytes, export_bundle
from nibble.runs.loaded import Loaded, float_parameters
from nibble.runs.sixteen_bit import Group, sixteen_bit
from nibble.runs.tensors import stored


@dataclass(frozen=True)
class Size:
    """Bytes on disk."""

    parameters: int  # of the float transducer, without parts that exist in training only
    bundle_bytes: int  # all files of the bundle
    sixteen_bit: list[Group] | None  # what a bundle holds in float16, most first; none if float; null: no bundle

    quantized_share: float | None = None  # of the parameters, by count; None: not known of this file

    @property
    def float32_bytes(self) -> int:
        """The parameters alone, at four bytes each: no header, no tokenizer, no buffers."""
        return 4 * self.parameters

    @property
    def ratio(self) -> float:
        """How many times smaller than float32 the whole bundle is."""
        return self.float32_bytes / self.bundle_bytes


def measure_size(loaded: Loaded) -> Size:
    """The size of a bundle, or of the bundle that a checkpoint makes."""
    parameters = float_parameters(loaded.config, loaded.tokenizer.size)
    share = quantized_share(coverage(loaded.model)) if loaded.precision is not Precision.float else 0.0
    if loaded.frozen:
        return Size(parameters, bundle_bytes(loaded.path), _sixteen_bit(loaded.path), share)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "bundle"
        written = export_bundle(loaded, folder)
        return Size(parameters, written, _sixteen_bit(folder), share)


def _sixteen_bit(folder: Path) -> list[Group]:
    return sixteen_bit(stored(folder / "model.safetensors"))
