"""Compares an export with torch layer by layer: outputs and integers.

Each layer of the export gets the input that torch's layer had, so differences do not add up along the network. With
quantized activations the outputs of whole networks differ by more than any layer: an input on the border between two
codes falls to either side, and later layers pass that on.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any, NamedTuple

import torch
from rich.text import Text
from torch import Tensor, nn

from nibble.export.sherpa.graphs import REPLAYED
from nibble.model.predictor import LstmPredictor
from nibble.quant.layer import QuantizedLayer
from nibble.runs.frozen import LAYERS, frozen_copy
from nibble.runs.loaded import Loaded
from nibble.terminal import Cell, Table

_FRAMES = 300


class Call(NamedTuple):
    """One call of a layer of torch's network."""

    module: nn.Module
    inputs: list[Tensor]  # of an LSTM also how many steps of each row count, (N,)
    output: Tensor  # of an LSTM the state after those


@dataclass(frozen=True)
class LayerParity:
    """How one layer of an export compares with torch's."""

    layer: str
    bits: int | None  # of a code; None: float weights
    equal: bool | None  # whether the export holds the same integers; None: it holds values
    largest_difference: float  # of an output value
    mean_difference: float
    mean_output: float  # mean magnitude of torch's output, to compare the differences with


def torch_calls(loaded: Loaded) -> dict[str, Call]:
    """Each layer of a model at the precision it is at, with integer weights, as it was called.

    The input is noise, with the mean and variance of the training speech if the model knows them, and random labels;
    both are always the same.
    """
    model = frozen_copy(loaded.model)
    random = torch.Generator().manual_seed(0)
    features = torch.randn(1, _FRAMES, model.encoder.mel_bins, generator=random)
    if (norm := model.encoder.normalization) is not None:
        features = features * norm.running_var.sqrt() + norm.running_mean
    labels = torch.randint(1, loaded.tokenizer.size, (1, REPLAYED - 1), generator=random)
    found: dict[str, Call] = {}
    top = model.predictor.layers[-1] if isinstance(model.predictor, LstmPredictor) else None

    def keep(name: str, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if module is top:
            found[name] = Call(module, [args[0], torch.tensor([args[0].shape[1]])], output[0][:, -1])
        else:
            out = output[0] if isinstance(module, nn.LSTM) else output
            found[name] = Call(module, list(args), out.clone())  # what follows may be in place

    hooks = [
        module.register_forward_hook(lambda module, args, output, name=name: keep(name, module, args, output))
        for name, module in model.named_modules()
        if isinstance(module, LAYERS)
    ]
    with torch.no_grad():
        model(features, torch.tensor([_FRAMES]), labels, torch.tensor([labels.shape[1]]))
    for hook in hooks:
        hook.remove()
    return found


def layer_parity(layer: str, call: Call, output: Tensor, equal: Sequence[bool]) -> LayerParity:
    """A layer's row.

    Args:
        layer: its name.
        call: torch's.
        output: the export's, for the same inputs.
        equal: for each weight that the export holds as integers, whether they are the same.
    """
    difference = (output - call.output).abs()
    return LayerParity(
        layer=layer,
        bits=call.module.weight_bits if isinstance(call.module, QuantizedLayer) else None,
        equal=all(equal) if equal else None,
        largest_difference=float(difference.max()),
        mean_difference=float(difference.mean()),
        mean_output=float(call.output.abs().mean()),
    )


def compare_bundle(loaded: Loaded, bundle: Loaded) -> list[LayerParity]:
    """Compare every layer of a bundle with the model it was made from."""
    rows = []
    for layer, call in torch_calls(loaded).items():
        module = bundle.model.get_submodule(layer)
        with torch.no_grad():
            output = module(call.inputs[0]) if isinstance(module, nn.LSTM) else module(*call.inputs)
        if isinstance(module, nn.LSTM):
            output = output[0][:, -1] if len(call.inputs) > 1 else output[0]
        rows.append(layer_parity(layer, call, output, _equal(call.module, module)))
    return rows


def _equal(first: nn.Module, second: nn.Module) -> list[bool]:
    """For each weight, whether both layers have the same integers."""
    if not isinstance(first, QuantizedLayer) or not isinstance(second, QuantizedLayer):
        return []
    theirs = second.frozen_weights()
    return [torch.equal(mine.codes, theirs[name].codes) for name, mine in first.frozen_weights().items()]


def parity_table(rows: Sequence[LayerParity], title: str) -> Table:
    """One row a layer, and one of all."""
    words: dict[bool | None, Cell] = {True: "equal", False: Text("differ", "bold red"), None: ""}
    shown: list[list[Cell]] = [
        [
            row.layer,
            "float" if row.bits is None else str(row.bits),
            words[row.equal],
            *(f"{value:.2e}" for value in (row.largest_difference, row.mean_difference, row.mean_output)),
        ]
        for row in rows
    ]
    compared = [row.equal for row in rows if row.equal is not None]
    whole: list[Cell] = [
        f"all {len(rows)}",
        "",
        f"{sum(compared)} of {len(compared)} equal",
        f"{max(row.largest_difference for row in rows):.2e}",
        f"{mean(row.mean_difference for row in rows):.2e}",
        f"{mean(row.mean_output for row in rows):.2e}",
    ]
    header = ("layer", "bits", "integers", "largest difference", "mean difference", "mean output")
    return Table(header, [*shown, whole], title=title)
