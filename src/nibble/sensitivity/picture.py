"""Layers against bits, coloured by damage."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from nibble.sensitivity.damage import Damage

_DECADES = 4  # of damage that have colours; smaller damage is drawn as zero


def draw(damage: Damage, assignment: Mapping[str, int] | None, path: Path, title: str) -> None:
    """Write a PNG: a row a layer in the order of the network, a column a width, a ring on the bits assigned."""
    layers, bits = list(damage), list(next(iter(damage.values())))
    values = np.array([[damage[layer][width] for width in bits] for layer in layers])
    worst = max(values.max(), 1e-12)
    figure = Figure(figsize=(4 + 0.6 * len(bits), 1.5 + 0.2 * len(layers)), dpi=120, layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(
        values.clip(worst * 10.0**-_DECADES),
        norm=LogNorm(worst * 10.0**-_DECADES, worst),
        cmap="magma_r",
        aspect="auto",
    )
    if assignment is not None:
        columns = [bits.index(assignment[layer]) for layer in layers]
        axes.plot(columns, range(len(layers)), "o", mfc="none", mec="tab:cyan")
    axes.set_xticks(range(len(bits)), [str(width) for width in bits])
    axes.set_yticks(range(len(layers)), layers, fontsize=7)
    axes.set_xlabel("bits of the weights")
    axes.set_title(title, fontsize=9)
    figure.colorbar(image, label="damage, nats per label")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
