"""Traces a torch module to an ONNX graph in which every layer with weights is one node, and expands these nodes.

torch's tracing exporter writes what lies between the layers, so the exported network is the trained one and no second
description of it. Each layer stands in the trace as one node of a domain of this project's own, which is replaced.
"""

import io
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import onnx
import torch
from onnx import ModelProto, NodeProto, helper, numpy_helper
from torch import Tensor, nn

from nibble.export.onnx.builder import Graph
from nibble.export.onnx.folding import fold
from nibble.export.onnx.layers import add_layer
from nibble.export.onnx.symbolics import short_symbolics
from nibble.export.onnx.weights import MICROSOFT
from nibble.export.options import Encoding
from nibble.runs.frozen import LAYERS

OLDEST_OPSET = 17
_IR_VERSIONS = {17: 8, 21: 10}  # opset -> the oldest version of the file format that has it
_DOMAIN = "nibble"
_NAMED_BY_VALUES = 16  # numbers at most: positions of a model that streams are a constant of thousands
_BY_POSITION = b"bthd,phd->bhtp"  # of `nibble.model.attention`


def stand_in(model: nn.Module) -> dict[str, nn.Module]:
    """Put a stand-in in the place of every layer with weights, in place; the layers by name."""
    layers: dict[str, nn.Module] = {
        name: module for name, module in model.named_modules() if isinstance(module, LAYERS)
    }
    for name, module in layers.items():
        model.set_submodule(name, _StandIn(name, module))
    return layers


def trace(
    wrapper: nn.Module, inputs: dict[str, Tensor], outputs: list[str], free: dict[str, dict[int, str]]
) -> ModelProto:
    """A module as a graph with stand-ins for its layers.

    Args:
        wrapper: in eval mode, without gradients; its layers are stand-ins.
        inputs: name -> an example.
        outputs: names.
        free: input or output -> its dimensions that may have any size, and what they are called.
    """
    file = io.BytesIO()
    with _quiet(), short_symbolics(OLDEST_OPSET), torch.no_grad():
        torch.onnx.export(
            wrapper,
            tuple(inputs.values()),
            file,  # type: ignore[arg-type]
            input_names=list(inputs),
            output_names=outputs,
            dynamic_axes=free,
            opset_version=OLDEST_OPSET,
            custom_opsets={_DOMAIN: 1},
            do_constant_folding=False,
            dynamo=False,
        )
    return onnx.load_from_string(file.getvalue())


class Site(NamedTuple):
    """Where a layer is in a graph: the names of its inputs, and of its output."""

    inputs: list[str]
    output: str


def expand(
    traced: ModelProto, layers: dict[str, nn.Module], encoding: Encoding, opset: int
) -> tuple[ModelProto, dict[str, Site]]:
    """The graph with the nodes of `encoding` in the place of stand-ins, and where the layers are in it.

    What the graph has itself (norms) is stored as layers store their biases.
    """
    graph = Graph(half=encoding is not Encoding.float, opset=opset)
    sites: dict[str, Site] = {}
    names = {name: name for name in ("", *(value.name for value in traced.graph.input))}
    for constant in traced.graph.initializer:
        array = numpy_helper.to_array(constant)
        store = graph.parameter if array.dtype.kind == "f" and array.ndim else graph.constant
        names[constant.name] = store(constant.name, array)
    for node in traced.graph.node:
        inputs = [names[name] for name in node.input]
        if node.op_type == "Constant":
            array = numpy_helper.to_array(node.attribute[0].t)
            few = array.size <= _NAMED_BY_VALUES
            names[node.output[0]] = graph.number(array) if few else graph.constant(graph.new_name(), array)
        elif node.domain == _DOMAIN:
            layer = node.attribute[0].s.decode()
            names[node.output[0]] = add_layer(graph, layer, layers[layer], inputs, encoding)
            sites[layer] = Site(inputs, names[node.output[0]])
        elif node.op_type == "Identity":
            names[node.output[0]] = inputs[0]
        elif node.op_type == "Einsum" and node.attribute[0].s == _BY_POSITION:
            names[node.output[0]] = _product_by_position(graph, *inputs)
        else:
            names |= zip(node.output, _as_it_is(graph, node, inputs), strict=True)
    given = {names[output.name]: output.name for output in traced.graph.output}
    for node in graph.nodes:
        for found in (node.input, node.output):
            found[:] = [given.get(name, name) for name in found]
    sites = {layer: Site(site.inputs, given.get(site.output, site.output)) for layer, site in sites.items()}
    constants = list(graph.constants.values())
    body = helper.make_graph(graph.nodes, "nibble", traced.graph.input, traced.graph.output, constants)
    opsets = [helper.make_opsetid("", opset)]
    if any(node.domain == MICROSOFT for node in graph.nodes):
        opsets.append(helper.make_opsetid(MICROSOFT, 1))
    return helper.make_model(body, producer_name="nibble", opset_imports=opsets, ir_version=_IR_VERSIONS[opset]), sites


def _as_it_is(graph: Graph, node: NodeProto, inputs: list[str]) -> list[str]:
    """A node that is no layer, or the few numbers that it always gives."""
    if (numbers := fold(node, [graph.numbers.get(name) for name in inputs])) is not None:
        return [graph.number(numbers)]
    copy = helper.make_node(node.op_type, inputs, [])
    copy.attribute.extend(node.attribute)
    if node.op_type == "Split" and len(inputs) == 1 and graph.opset >= 18:
        copy.attribute.append(helper.make_attribute("num_outputs", len(node.output)))  # until then it was not said
    return graph.add(copy, len(node.output))


def _product_by_position(graph: Graph, query: str, position: str) -> str:
    """`_BY_POSITION` as MatMul, for which ONNX Runtime takes half the time that it takes for Einsum."""
    by_head = graph.op("Transpose", query, perm=[0, 2, 1, 3])
    return graph.op("MatMul", by_head, graph.op("Transpose", position, perm=[1, 2, 0]))


class _Layer(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, module: nn.Module, name: str, *inputs: Tensor) -> Tensor:
        ctx.name = name
        # What is inside need not be traced, and can't be twice: the tracer fails on a weight that it has seen before.
        tracing = torch._C._get_tracing_state()
        torch._C._set_tracing_state(None)  # type: ignore[attr-defined]
        try:
            out: Tensor = module(*inputs)
        finally:
            torch._C._set_tracing_state(tracing)  # type: ignore[attr-defined]
        return out

    @staticmethod
    def symbolic(g: Any, module: nn.Module, name: str, *inputs: Any) -> Any:
        del module
        return g.op(f"{_DOMAIN}::Layer", *inputs, layer_s=name)


class _StandIn(nn.Module):
    def __init__(self, name: str, module: nn.Module) -> None:
        super().__init__()
        self.name = name
        self.hidden = (_LastState(module) if isinstance(module, nn.LSTM) else module,)  # in a tuple: not a submodule

    def forward(self, *inputs: Tensor) -> Tensor:
        out: Tensor = _Layer.apply(self.hidden[0], self.name, *inputs)
        return out


class _LastState(nn.Module):
    """An LSTM as the exported one is called.

    x (N, U, K), steps (N,) -> the hidden state after so many steps (N, P); without steps, all hidden states (N, U, P).
    With the states before, hidden and cell (1, N, P) each, in place of steps: the states after the last, (2, N, P).
    """

    def __init__(self, lstm: nn.LSTM) -> None:
        super().__init__()
        self.lstm = lstm

    def forward(self, x: Tensor, *given: Tensor) -> Tensor:
        if len(given) == 2:
            return torch.cat(self.lstm(x, given)[1])
        states: Tensor = self.lstm(x)[0]
        return states[torch.arange(len(x)), given[0] - 1] if given else states


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter warns of what is known: that it traces, and (past Python, at the end of stderr) of each stand-in."""
    sys.stderr.flush()
    stderr = os.dup(2)
    with warnings.catch_warnings(), open(os.devnull, "wb") as nowhere:
        warnings.simplefilter("ignore")
        os.dup2(nowhere.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
