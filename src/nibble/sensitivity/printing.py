"""Prints the results of `python -m nibble.sensitivity`."""

from nibble.sensitivity.analysis import Analysis
from nibble.terminal import Console, Table


def print_analysis(found: Analysis, console: Console) -> None:
    """The layers, the most damaged first, then how far the two methods agree and what was written."""
    console.print(ranking(found))
    if found.damage is not found.estimate:
        agreement = ", ".join(f"{found.rank_correlation(width):.2f} at {width} bits" for width in widths(found))
        console.print(f"rank correlation of the measured damage with its second-order estimate: {agreement}")
    if found.prediction:
        console.print(found.prediction)
    for path in found.written:
        console.print(f"written: {path}")


def ranking(found: Analysis) -> Table:
    """A row a layer, in the order of the damage at the fewest bits, in thousandths of a nat a label."""
    bits = widths(found)
    header, rows = ["layer", "weights", *(f"{width} bits" for width in bits)], []
    for layer in sorted(found.damage, key=lambda layer: -found.damage[layer][bits[0]]):
        damage = [f"{1000 * found.damage[layer][width]:.2f}" for width in bits]
        rows.append([layer, f"{found.weights[layer]:,}", *damage])
        if found.assignment is not None:
            rows[-1].append(str(found.assignment[layer]))
    if found.assignment is not None:
        header.append("chosen")
    return Table(header, rows, title="damage of a layer alone at these bits, in 0.001 nats a label")


def widths(found: Analysis) -> list[int]:
    """The bits that were tried, the fewest first."""
    return list(next(iter(found.damage.values())))
