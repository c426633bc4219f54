"""How large a model is on disk, and what of it is not integers."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch

from nibble.export.bundle import bundle_bytes, stored_tensors, write_bundle
from nibble.export.loaded import Loaded, float_parameters


@dataclass(frozen=True)
class Group:
    """Tensors of one kind in one part of the network, such as all biases of the encoder."""

    name: str  # encoder.**.bias; the whole name of a tensor that is alone
    tensors: int
    values: int


@dataclass(frozen=True)
class Size:
    """Bytes on disk."""

    parameters: int  # of the float transducer, without parts that exist in training only
    bundle_bytes: int  # all files of the bundle
    sixteen_bit: list[Group]  # what a bundle holds in float16, most values first; empty for a float bundle

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
    if loaded.frozen:
        return Size(parameters, bundle_bytes(loaded.path), _sixteen_bit(loaded.path))
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "bundle"
        written = write_bundle(folder, loaded.model, loaded.tokenizer, loaded.config, loaded.notes)
        return Size(parameters, written, _sixteen_bit(folder))


def _sixteen_bit(folder: Path) -> list[Group]:
    found: dict[str, list[tuple[str, int]]] = {}
    for name, tensor in stored_tensors(folder).items():
        if tensor.dtype == torch.float16:
            room, _, inner = name.partition(".")
            found.setdefault(f"{room}.**.{inner.rpartition('.')[2]}", []).append((name, tensor.numel()))
    groups = [
        Group(pattern if len(tensors) > 1 else tensors[0][0], len(tensors), sum(values for _, values in tensors))
        for pattern, tensors in found.items()
    ]
    return sorted(groups, key=lambda group: (-group.values, group.name))
