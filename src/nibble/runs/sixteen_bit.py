"""Lists the values of a bundle that are not integers."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

from nibble.runs.tensors import Stored


@dataclass(frozen=True)
class Group:
    """Tensors of one kind in one part of the network, such as all biases of the encoder."""

    name: str  # encoder.**.bias; the whole name of a tensor that is alone
    tensors: int
    values: int


def sixteen_bit(tensors: Mapping[str, Stored]) -> list[Group]:
    """What a bundle holds in float16, most values first; nothing in a bundle of a float model, which has 32 bits."""
    found: dict[str, list[tuple[str, int]]] = {}
    for name, tensor in tensors.items():
        if tensor.type == "F16":
            room, _, inner = name.partition(".")
            found.setdefault(f"{room}.**.{inner.rpartition('.')[2]}", []).append((name, prod(tensor.shape)))
    groups = [
        Group(pattern if len(alike) > 1 else alike[0][0], len(alike), sum(values for _, values in alike))
        for pattern, alike in found.items()
    ]
    return sorted(groups, key=lambda group: (-group.values, group.name))
