"""Codes in an ONNX file: as few bits as they say, and the same integers after ONNX Runtime unpacked them."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("onnx", reason="onnx is not installed: pip install -e '.[export]'")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: pip install -e '.[export]'")

import onnx

from nibble.errors import UserError
from nibble.export.onnx_graph import Graph
from nibble.export.onnx_transducer import session
from nibble.export.onnx_weights import Weight, add_codes, pack_halves
from nibble.quant.numerics import dequantize, quantize_weight
from nibble.quant.spec import WeightSpec


def weight(spec: WeightSpec, *shape: int) -> Weight:
    integers = quantize_weight(torch.randn(*shape), spec, "test")
    return Weight("w", integers, dequantize(*integers[:2]), spec.bits)


def unpacked(graph: Graph, name: str) -> np.ndarray:
    body = onnx.helper.make_graph(
        graph.nodes,
        "test",
        [],
        [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.INT8, None)],
        list(graph.constants.values()),
    )
    model = onnx.helper.make_model(body, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    return session(model.SerializeToString(), 1).run(None, {})[0]


@settings(max_examples=25, deadline=None)
@given(
    shape=st.lists(st.integers(1, 7), min_size=2, max_size=4),
    bits=st.integers(1, 8),
    symmetric=st.booleans(),
    packed=st.booleans(),
)
def test_unpacking_gives_the_codes_back(shape: list[int], bits: int, symmetric: bool, packed: bool) -> None:
    given_weight = weight(WeightSpec(bits, symmetric=symmetric or not 2 <= bits <= 7), *shape)
    graph = Graph(half=True)
    found = unpacked(graph, add_codes(graph, given_weight, packed))
    assert found.dtype == np.int8
    assert given_weight.integers is not None
    np.testing.assert_array_equal(found, given_weight.integers.codes.numpy())


def test_codes_of_groups_have_a_dimension_of_their_own() -> None:
    given_weight = weight(WeightSpec(4, group_size=8, symmetric=False), 3, 24)
    graph = Graph(half=True)
    found = unpacked(graph, add_codes(graph, given_weight, packed=True))
    assert found.shape == (3, 3, 8)
    assert given_weight.integers is not None
    np.testing.assert_array_equal(found.reshape(3, 24), given_weight.integers.codes.numpy())


@pytest.mark.parametrize(("bits", "bytes_"), [(2, 500), (4, 500), (5, 1000), (8, 1000)])
def test_four_bits_are_four_bits(bits: int, bytes_: int) -> None:
    graph = Graph(half=True)
    add_codes(graph, weight(WeightSpec(bits), 10, 100), packed=True)
    assert sum(len(constant.raw_data) for constant in graph.constants.values() if len(constant.raw_data) > 99) == bytes_


def test_the_first_half_lies_in_the_low_nibbles() -> None:
    assert pack_halves(np.array([[1, 2], [3, 4], [5, 15]])).tolist() == [0x41, 0x52, 0xF3]
    assert pack_halves(np.array([7, 8, 9])).tolist() == [0x97, 0x08]


def test_parameters_are_stored_in_16_bits_where_weights_are_integers() -> None:
    values = np.array([1.0, 1 / 3], dtype=np.float32)
    exact, half = Graph(half=False), Graph(half=True)
    assert exact.parameter("p", values) == "p"
    assert [len(graph.constants["p"].raw_data) for graph in (exact, half) if graph.parameter("p", values)] == [8, 4]
    with pytest.raises(UserError, match=r"p has values that float16 cannot hold \(largest 70000\)"):
        half.parameter("p", np.array([7e4], dtype=np.float32))
