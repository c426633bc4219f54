"""Compares the layers of an ONNX export with torch's: see `nibble.export.parity`."""

from collections.abc import Mapping, Sequence

import torch
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from torch import nn

from nibble.export.onnx.builder import Array
from nibble.export.onnx.graphs import ExportedGraph
from nibble.export.onnx.products import block_codes, blocks_name
from nibble.export.onnx.weights import codes_name, for_product, weight_of
from nibble.export.parity import Call, LayerParity, layer_parity, torch_calls
from nibble.inference.onnx_session import session
from nibble.quant.layer import QuantizedLayer
from nibble.quant.tensor import in_slices
from nibble.runs.loaded import Loaded


def compare_graphs(loaded: Loaded, graphs: Mapping[str, ExportedGraph]) -> list[LayerParity]:
    """Compare every layer of an export with the model it was made from."""
    calls = torch_calls(loaded)
    rows = []
    for graph in graphs.values():
        for layer, site in graph.sites.items():
            call = _with_state(calls[layer]) if len(site.inputs) > 2 else calls[layer]
            feed = {name: tensor.numpy() for name, tensor in zip(site.inputs, call.inputs, strict=True)}
            output = torch.from_numpy(_run(graph.model, feed, site.output))
            rows.append(layer_parity(layer, call, output, _equal(graph.model, layer, call.module)))
    return rows


def _with_state(call: Call) -> Call:
    """The second step of an LSTM, from the states that the first one leaves: hidden and cell after it, (2, N, P)."""
    lstm, x = call.module, call.inputs[0]
    with torch.no_grad():
        before = lstm(x[:, :1])[1]
        after = lstm(x[:, 1:2], before)[1]
    return Call(lstm, [x[:, 1:2], *before], torch.cat(after))


def _equal(graph: ModelProto, layer: str, module: nn.Module) -> list[bool]:
    """For each weight that the file holds as codes, whether they are the same.

    Codes are unpacked by the nodes of the file itself; those of MatMulNBits, which it unpacks as it goes, are compared
    as they lie.
    """
    if not isinstance(module, QuantizedLayer):
        return []
    constants = {constant.name: constant for constant in graph.graph.initializer}
    made = {name for node in graph.graph.node for name in node.output}
    equal = []
    for name in module.frozen_weights():
        weight = weight_of(module, layer, name)
        blocks = blocks_name(weight.name)
        assert weight.integers is not None
        expected = in_slices(weight.integers.codes, weight.integers.scale)
        if blocks in constants:
            equal.append(_same(numpy_helper.to_array(constants[blocks]), block_codes(weight)[0]))
        for codes, order in (
            (codes_name(weight.name, product=False), expected),
            (codes_name(weight.name, product=True), for_product(expected, weight)),
        ):
            if codes in constants:
                equal.append(_same(numpy_helper.to_array(constants[codes]), order.numpy()))
            elif codes in made:
                equal.append(_same(_run(graph, {}, codes), order.numpy()))
    return equal


def _same(found: Array, expected: Array) -> bool:
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
    if last.op_type == "QLinearAdd":
        return int(TensorProto.INT8)
    target = next((attribute.i for attribute in last.attribute if last.op_type == "Cast"), int(TensorProto.FLOAT))
    return int(target)
