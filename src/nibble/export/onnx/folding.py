"""Folds the constant arithmetic of a traced graph: sizes, axes and bounds of slices."""

from collections.abc import Sequence

from onnx import NodeProto, helper
from onnx.reference import ReferenceEvaluator

from nibble.export.onnx.builder import Array

_OPERATORS = frozenset(("Add", "Cast", "Concat", "Gather", "Mul", "Neg", "Squeeze", "Sub", "Unsqueeze"))


def fold(node: NodeProto, inputs: Sequence[Array | None]) -> Array | None:
    """The output of a node with constant inputs; None if an input isn't constant or the node is of another kind."""
    if node.op_type not in _OPERATORS or any(array is None for array in inputs):
        return None
    names = [f"input{index}" for index in range(len(inputs))]
    alone = helper.make_node(node.op_type, names, ["output"])
    alone.attribute.extend(node.attribute)
    found: Array = ReferenceEvaluator(alone).run(None, dict(zip(names, inputs, strict=True)))[0]
    return found
