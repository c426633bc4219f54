"""Summarises which parameters of a prepared model become integers and which don't, by name and share of the bytes."""

from collections import defaultdict
from collections.abc import Iterable

from torch import nn

from nibble.quant.rules import FLOAT_BITS, Covered, coverage

_NAMED = 8  # parameters that a line names


def summary(model: nn.Module) -> str:
    """Lines such as `int4: 91.2 % of 3.1 MB, 48 parameters`; of those that stay in 16 bits the largest are named.

    Args:
        model: prepared; scales are not counted.
    """
    covered = coverage(model)
    total = sum(_size_bytes(part) for part in covered) or 1.0
    by_bits: dict[int, list[Covered]] = defaultdict(list)
    for part in covered:
        by_bits[part.bits].append(part)
    lines = []
    for bits, parts in sorted(by_bits.items()):
        kind = "stays in 16 bits" if bits == FLOAT_BITS else f"int{bits}"
        share = sum(_size_bytes(part) for part in parts) / total
        line = f"{kind}: {share:.1%} of {total / 1e6:.3g} MB, {len(parts)} parameters"
        lines.append(line + (f": {_largest(parts, total)}" if bits == FLOAT_BITS else ""))
    return "\n".join(lines)


def _size_bytes(part: Covered) -> float:
    return part.elements * part.bits / 8


def _largest(parts: Iterable[Covered], total: float) -> str:
    """`encoder.masked_spec_embed 1.2%, ... and 17 smaller`."""
    ordered = sorted(parts, key=_size_bytes, reverse=True)
    named = ", ".join(f"{part.name} {_size_bytes(part) / total:.1%}" for part in ordered[:_NAMED])
    return named + (f" and {len(ordered) - _NAMED} smaller" if len(ordered) > _NAMED else "")
