"""Layer by layer: what an ONNX export computes, and which integers it holds, against torch.

Each layer of the export gets the input that torch's layer had, so differences do not add up along the network. With
quantized activations the outputs of whole networks differ by more than any layer: an input on the border between two
codes falls to either side, and later layers pass that on.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from rich.table import Table
from torch import Tensor, nn

from nibble.export.loaded import Loaded
from nibble.export.onnx_export import ExportedGraph, frozen_copy
from nibble.export.onnx_graph import Array
from nibble.export.onnx_layers import LAYERS
from nibble.export.onnx_products import block_codes, blocks_name
from nibble.export.onnx_trace import Site
from nibble.export.onnx_transducer import session
from nibble.export.onnx_weights import codes_name, weight_of
from nibble.export.sherpa_graphs import REPLAYED
from nibble.model.transducer import Transducer
from nibble.quant.layer import QuantizedLayer
from nibble.quant.numerics import in_slices

_FRAMES = 300


@dataclass(frozen=True)
class LayerParity:
    """How one layer of an export compares with torch's."""

    layer: str
    bits: int | None  # of a code; None: float weights
    equal: bool | None  # whether the file holds the same integers; None: it holds values
    largest_difference: float  # of an output value
    mean_difference: float
    mean_output: float  # mean magnitude of torch's output, to compare the differences with


def compare_layers(loaded: Loaded, graphs: Mapping[str, ExportedGraph]) -> list[LayerParity]:
    """Compare every layer of an export with the model it was made from.

    The input is noise with the mean and variance of the training speech, and random labels; both are always the same.
    """
    model = frozen_copy(loaded.model)
    calls = _calls(model, loaded.tokenizer.size, loaded.config.features.mel_bins)
    layers = dict(model.named_modules())
    return [
        _compare(layer, layers[layer], graph.model, site, *calls[layer])
        for graph in graphs.values()
        for layer, site in graph.sites.items()
    ]


def parity_table(rows: Sequence[LayerParity], title: str) -> Table:
    """One row a layer, and one of all."""
    table = Table(title=title)
    for column in ("layer", "bits", "integers", "largest difference", "mean difference", "mean output"):
        table.add_column(column, justify="left" if column == "layer" else "right", no_wrap=True)
    for row in rows:
        table.add_row(
            row.layer,
            "float" if row.bits is None else str(row.bits),
            {True: "equal", False: "[bold red]differ[/]", None: ""}[row.equal],
            *(f"{value:.2e}" for value in (row.largest_difference, row.mean_difference, row.mean_output)),
        )
    compared = [row.equal for row in rows if row.equal is not None]
    table.add_section()
    table.add_row(
        f"all {len(rows)}",
        "",
        f"{sum(compared)} of {len(compared)} equal",
        f"{max(row.largest_difference for row in rows):.2e}",
        f"{np.mean([row.mean_difference for row in rows]):.2e}",
        f"{np.mean([row.mean_output for row in rows]):.2e}",
    )
    return table


def _calls(model: Transducer, vocabulary_size: int, mel_bins: int) -> dict[str, tuple[list[Tensor], Tensor]]:
    """Layer -> what it was called with, and what it gave."""
    random = torch.Generator().manual_seed(0)
    norm = model.encoder.normalization
    features = torch.randn(1, _FRAMES, mel_bins, generator=random) * norm.running_var.sqrt() + norm.running_mean
    labels = torch.randint(1, vocabulary_size, (1, REPLAYED - 1), generator=random)
    found: dict[str, tuple[list[Tensor], Tensor]] = {}

    def keep(name: str, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if isinstance(module, nn.LSTM):  # the exported one gives the last state
            steps = torch.tensor([args[0].shape[1]])
            found[name] = [args[0], steps], output[0][:, -1]
        else:
            found[name] = [args[0]], output.clone()  # a ReLU in place may follow

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


def _compare(
    layer: str, module: nn.Module, graph: ModelProto, site: Site, inputs: list[Tensor], expected: Tensor
) -> LayerParity:
    feed = {name: tensor.numpy() for name, tensor in zip(site.inputs, inputs, strict=True)}
    difference = np.abs(_run(graph, feed, site.output) - expected.numpy())
    weights = module.weight_names if isinstance(module, QuantizedLayer) and module.frozen_weights() else ()
    equal = [same for name in weights if (same := _same_integers(graph, layer, module, name)) is not None]
    return LayerParity(
        layer=layer,
        bits=module.weight_bits if isinstance(module, QuantizedLayer) else None,
        equal=all(equal) if equal else None,
        largest_difference=float(difference.max()),
        mean_difference=float(difference.mean()),
        mean_output=float(expected.abs().mean()),
    )


def _same_integers(graph: ModelProto, layer: str, module: nn.Module, name: str) -> bool | None:
    """Whether a file holds the codes of a weight; None if it holds values.

    Codes are unpacked by the nodes of the file itself; those of MatMulNBits, which it unpacks as it goes, are compared
    as they lie.
    """
    weight = weight_of(module, layer, name)
    assert weight.integers is not None
    constants = {constant.name: constant for constant in graph.graph.initializer}
    if (blocks := constants.get(blocks_name(weight.name))) is not None:
        return bool((numpy_helper.to_array(blocks) == block_codes(weight)[0]).all())
    codes = codes_name(weight.name)
    if codes in constants:
        found = numpy_helper.to_array(constants[codes])
    elif any(codes in node.output for node in graph.graph.node):
        found = _run(graph, {}, codes)
    else:
        return None
    expected = in_slices(weight.integers.codes, weight.integers.scale).numpy()
    return found.shape == expected.shape and bool((found == expected).all())


def _run(graph: ModelProto, feed: Mapping[str, Array], output: str) -> Array:
    """What the graph gives for `output` if the tensors of `feed` have these values; the other nodes are left out."""
    nodes: list[NodeProto] = []
    needed = {output}
    for node in reversed(graph.graph.node):
        if needed.intersection(node.output):
            nodes.insert(0, node)
            needed |= set(node.input) - feed.keys()
    constants = [constant for constant in graph.graph.initializer if constant.name in needed]
    inputs = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
        for name, array in feed.items()
    ]
    outputs = [helper.make_tensor_value_info(output, _type(nodes), None)]
    part = helper.make_model(
        helper.make_graph(nodes, "part", inputs, outputs, constants),
        opset_imports=graph.opset_import,
        ir_version=graph.ir_version,
    )
    found: Array = session(part.SerializeToString(), threads=1).run(None, dict(feed))[0]
    return found


def _type(nodes: Sequence[NodeProto]) -> int:
    """The type of what the last node gives: int8 of unpacked codes, else float."""
    last = nodes[-1]
    target = next((attribute.i for attribute in last.attribute if last.op_type == "Cast"), int(TensorProto.FLOAT))
    return int(target)
