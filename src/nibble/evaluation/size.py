"""Measures the size of a model on disk, and which part of it is not integers."""

from dataclasses import dataclass

from nibble.quant.rules import coverage, quantized_share
from nibble.quant.spec import Precision
from nibble.runs.bundle import bundle_bytes, unwritten_bytes
from nibble.runs.loaded import Loaded, float_parameters
from nibble.runs.sixteen_bit import Group, sixteen_bit
from nibble.runs.tensors import WEIGHTS, stored, stored_of


@dataclass(frozen=True)
class Size:
    """Bytes on disk."""

    parameters: int  # of the float transducer, without parts that exist in training only
    bundle_bytes: int  # all files of the bundle but README.md
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
    """The size of a bundle, or of the bundle that a checkpoint would make; nothing is written."""
    parameters = float_parameters(loaded.config, loaded.tokenizer.size)
    share = quantized_share(coverage(loaded.model)) if loaded.precision is not Precision.float else 0.0
    if loaded.frozen:
        return Size(parameters, bundle_bytes(loaded.path), sixteen_bit(stored(loaded.path / WEIGHTS)), share)
    tensors = stored_of(loaded)
    return Size(parameters, unwritten_bytes(loaded, tensors), sixteen_bit(tensors), share)
