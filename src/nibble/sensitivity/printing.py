"""What `python -m nibble.sensitivity` shows."""

from rich import box
from rich.console import Console
from rich.table import Table

from nibble.sensitivity.analysis import Analysis


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
    table = Table(
        title="damage of a layer alone at so many bits, in 0.001 nats a label", box=box.SIMPLE, padding=(0, 1, 0, 0)
    )
    table.add_column("layer", overflow="fold")
    for header in ("weights", *map(str, bits), *([] if found.assignment is None else ["chosen"])):
        table.add_column(header, justify="right", no_wrap=True)
    for layer in sorted(found.damage, key=lambda layer: -found.damage[layer][bits[0]]):
        row = [layer, f"{found.weights[layer]:,}", *(f"{1000 * found.damage[layer][width]:.2f}" for width in bits)]
        table.add_row(*row, *([] if found.assignment is None else [str(found.assignment[layer])]))
    return table


def widths(found: Analysis) -> list[int]:
    """The bits that were tried, the fewest first."""
    return list(next(iter(found.damage.values())))
