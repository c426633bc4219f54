"""Builds an ONNX graph: a node for each call, and constants in as few bytes as their values need."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from nibble.errors import UserError
from nibble.kernels.nibbles import pack_pairs

Array = NDArray[Any]
MOST_BYTES = 2**31 - 2**24  # of weights in one file: protobuf holds 2 GB, and nodes and names need a little


def weight_bytes(graph: ModelProto) -> int:
    """The bytes of all constants of a graph."""
    return sum(len(weight.raw_data) for weight in graph.graph.initializer)


class Graph:
    """Nodes and constants of one ONNX file. Every method returns the name of the tensor it made.

    Names are short and nodes have none: in the file of a small model they would take more bytes than the weights.

    Args:
        half: whether parameters are stored in 16 bits, with a Cast that ONNX Runtime folds when it loads the file.
        opset: version of ONNX's operators.
    """

    def __init__(self, half: bool, opset: int) -> None:
        self.half = half
        self.opset = opset
        self.nodes: list[NodeProto] = []
        self.constants: dict[str, TensorProto] = {}
        self.numbers: dict[str, Array] = {}  # constants that `number` made
        self._named = 0
        self._made: dict[bytes, list[str]] = {}  # a node without its outputs -> these

    def op(self, kind: str, *inputs: str, domain: str = "", name: str | None = None, **attributes: Any) -> str:
        """A node with one output, called `name` if that is given."""
        node = helper.make_node(kind, inputs, [name] if name else [], domain=domain or None, **attributes)
        return self.add(node, outputs=1)[0]

    def ops(self, kind: str, *inputs: str, outputs: int, domain: str = "", **attributes: Any) -> list[str]:
        """A node with several outputs."""
        return self.add(helper.make_node(kind, inputs, [], domain=domain or None, **attributes), outputs)

    def add(self, node: NodeProto, outputs: int) -> list[str]:
        """Add a node, whose outputs may have no names yet; a node equal to an earlier one is not added again.

        So query, key and value share the codes of their input.
        """
        key = node.SerializeToString(deterministic=True)
        if key not in self._made:
            if not node.output:
                node.output.extend(self.new_name() for _ in range(outputs))
            self._made[key] = list(node.output)
            self.nodes.append(node)
        return self._made[key]

    def reduce(self, kind: str, x: str, axis: int) -> str:
        """ReduceMax or ReduceMin over an axis, which then has size 1; from opset 18 on the axis is an input."""
        if self.opset < 18:
            return self.op(kind, x, axes=[axis])
        return self.op(kind, x, self.ints(axis))

    def int4(self, name: str, codes: Array) -> str:
        """Codes of -8 ... 7 in 4 bits each; from opset 21 on."""
        data = pack_pairs(torch.from_numpy(codes.reshape(-1).astype(np.uint8) & 15)).numpy().tobytes()
        self.constants[name] = helper.make_tensor(name, TensorProto.INT4, codes.shape, data, raw=True)
        return name

    def new_name(self) -> str:
        """A name that no other tensor has."""
        self._named += 1
        return f"t{self._named}"

    def constant(self, name: str, array: Array) -> str:
        """An array as it is."""
        self.constants[name] = numpy_helper.from_array(np.asarray(array, order="C"), name)
        return name

    def number(self, value: Array | np.generic) -> str:
        """A scalar or a short array, stored once however often it is used."""
        array = np.asarray(value)
        name = f"{array.dtype}{array.tolist()}".replace(" ", "")
        self.numbers[name] = array
        return self.constant(name, array)

    def ints(self, *values: int) -> str:
        """An int64 array, as shapes and axes are."""
        return self.number(np.array(values, dtype=np.int64))

    def parameter(self, name: str, array: Array) -> str:
        """Floating-point values: 32 bits, or 16 and a Cast.

        Raises:
            UserError: a value is larger than 16 bits can hold.
        """
        if not self.half:
            return self.constant(name, array.astype(np.float32))
        return self.op("Cast", self.constant(name, _in_16_bits(name, array)), to=TensorProto.FLOAT)

    def as_stored(self, name: str, array: Array) -> Array:
        """Values as `parameter` gives them back, in 32 bits."""
        return (_in_16_bits(name, array) if self.half else array).astype(np.float32)


def _in_16_bits(name: str, array: Array) -> Array:
    with np.errstate(over="ignore"):
        short = array.astype(np.float16)
    if not np.isfinite(short).all():
        largest = np.abs(array).max()
        raise UserError(f"{name} has values that float16 cannot hold (largest {largest:g}); train again")
    return short
