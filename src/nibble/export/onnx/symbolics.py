"""Makes torch's tracing exporter write a few operations with fewer nodes.

It takes the shape of a tensor apart and puts it together again: eleven nodes for an `unflatten`. ONNX's Reshape can
keep a dimension (0) and find one (-1), so where the last dimensions change one node does.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.onnx import register_custom_op_symbolic, symbolic_helper, unregister_custom_op_symbolic
from torch.onnx.symbolic_opset9 import flatten as usual_flatten
from torch.onnx.symbolic_opset9 import masked_fill as usual_masked_fill
from torch.onnx.symbolic_opset13 import unflatten as usual_unflatten

_KEEP, _FIND = 0, -1  # in the shape that Reshape is given


@contextmanager
def short_symbolics(opset: int) -> Iterator[None]:
    """Inside, `torch.onnx.export` for `opset` uses what is below."""
    ours: dict[str, Callable[..., Any]] = {
        "aten::flatten": _flatten,
        "aten::masked_fill": _masked_fill,
        "aten::unflatten": _unflatten,
        "aten::scaled_dot_product_attention": _attention,
    }
    for name, symbolic in ours.items():
        register_custom_op_symbolic(name, symbolic, opset)
    try:
        yield
    finally:
        for name in ours:
            unregister_custom_op_symbolic(name, opset)


@symbolic_helper.parse_args("v", "i", "i")
def _flatten(g: Any, x: Any, start: int, end: int) -> Any:
    rank = _rank(x)
    if end % rank < rank - 1:
        return usual_flatten(g, x, start, end)
    return g.op("Reshape", x, _ints(g, *[_KEEP] * (start % rank), _FIND))


@symbolic_helper.parse_args("v", "i", "v")
def _unflatten(g: Any, x: Any, dim: int, sizes: Any) -> Any:
    rank = _rank(x)
    if dim % rank < rank - 1:
        return usual_unflatten(g, x, _ints(g, dim), sizes)
    kept = _ints(g, *[_KEEP] * (rank - 1))
    return g.op("Reshape", x, g.op("Concat", kept, sizes, axis_i=0))


@symbolic_helper.parse_args("v", "v", "v")
def _masked_fill(g: Any, x: Any, mask: Any, value: Any) -> Any:
    """x + 0 or -inf: the sum is several times as fast as a choice, and all blocks share the terms."""
    if symbolic_helper._parse_arg(value, "f") != float("-inf"):
        return usual_masked_fill(g, x, mask, value)
    hidden, visible = (g.op("Constant", value_t=torch.tensor(number)) for number in (float("-inf"), 0.0))
    return g.op("Add", x, g.op("Where", mask, hidden, visible))


@symbolic_helper.parse_args("v", "v", "v", "v", "f", "b", "v", "b")
def _attention(
    g: Any, query: Any, key: Any, value: Any, mask: Any, dropout: float, causal: bool, scale: Any, grouped: bool
) -> Any:
    """softmax(scale q k + mask) v, with a mask that is added."""
    assert not any((dropout, causal, grouped)), "as `nibble.model.attention` calls it"
    turned = g.op("Transpose", key, perm_i=[0, 1, 3, 2])
    number = g.op("Constant", value_t=torch.tensor(symbolic_helper._parse_arg(scale, "f")))
    scores = g.op("MatMul", g.op("Mul", query, number), turned)
    return g.op("MatMul", g.op("Softmax", g.op("Add", scores, mask), axis_i=-1), value)


def _rank(x: Any) -> int:
    rank = symbolic_helper._get_tensor_rank(x)
    assert rank is not None, "a trace knows how many dimensions a tensor has"
    return rank


def _ints(g: Any, *values: int) -> Any:
    return g.op("Constant", value_t=torch.tensor(values, dtype=torch.long))
