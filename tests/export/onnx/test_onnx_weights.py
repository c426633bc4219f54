"""Codes in an ONNX file: as few bits as they say, and the same integers after ONNX Runtime unpacked them."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

pytest.importorskip("onnx", reason="onnx is not installed: pip install -e '.[export]'")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: pip install -e '.[export]'")

import onnx

from nibble.errors import UserError
from nibble.export.onnx.builder import Graph
from nibble.export.onnx.products import add_product
from nibble.export.onnx.weights import MICROSOFT, Weight, add_codes, pack_halves, weight_of
from nibble.export.options import Encoding
from nibble.inference.onnx_session import session
from nibble.quant.convert import freeze, prepare, set_precision
from nibble.quant.numerics import quantize_weight
from nibble.quant.spec import ActivationSpec, Precision, QuantConfig, Rule, WeightSpec


def weight(spec: WeightSpec, *shape: int) -> Weight:
    integers = quantize_weight(torch.randn(*shape), spec, "test")
    return Weight("w", integers, integers.dequantize(), spec.bits)


def unpacked(given_weight: Weight, opset: int, packed: bool = True) -> np.ndarray:
    graph = Graph(half=True, opset=opset)
    name = add_codes(graph, given_weight, packed)
    body = onnx.helper.make_graph(
        graph.nodes,
        "test",
        [],
        [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.INT8, None)],
        list(graph.constants.values()),
    )
    opsets = [onnx.helper.make_opsetid("", opset), onnx.helper.make_opsetid(MICROSOFT, 1)]
    model = onnx.helper.make_model(body, opset_imports=opsets, ir_version=8 if opset == 17 else 10)
    return session(model.SerializeToString(), 1).run(None, {})[0]


@settings(max_examples=25, deadline=None)
@given(
    shape=st.lists(st.integers(1, 7), min_size=2, max_size=4),
    bits=st.integers(1, 8),
    symmetric=st.booleans(),
    packed=st.booleans(),
    opset=st.sampled_from([17, 21]),
)
def test_unpacking_gives_the_codes_back(shape: list[int], bits: int, symmetric: bool, packed: bool, opset: int) -> None:
    given_weight = weight(WeightSpec(bits, symmetric=symmetric or not 2 <= bits <= 7), *shape)
    found = unpacked(given_weight, opset, packed)
    assert found.dtype == np.int8
    assert given_weight.integers is not None
    np.testing.assert_array_equal(found, given_weight.integers.codes.numpy())


@pytest.mark.parametrize("opset", [17, 21])
def test_codes_of_groups_have_a_dimension_of_their_own(opset: int) -> None:
    given_weight = weight(WeightSpec(4, group_size=8, symmetric=False), 3, 24)
    found = unpacked(given_weight, opset)
    assert found.shape == (3, 3, 8)
    assert given_weight.integers is not None
    np.testing.assert_array_equal(found.reshape(3, 24), given_weight.integers.codes.numpy())


LOADED = """
import os, sys
import onnxruntime

def resident_bytes():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
before = resident_bytes()
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
print(resident_bytes() - before)
"""


@pytest.mark.parametrize(("opset", "bytes_a_weight"), [(21, 5), (17, 9)])
def test_a_file_of_four_bits_loads_in_a_few_bytes_a_weight(tmp_path: Path, opset: int, bytes_a_weight: int) -> None:
    """Unpacked by way of int32, a weight took seventeen bytes for as long as the model was loaded."""
    layers, width = 24, 1024
    model = nn.Sequential(*(nn.Linear(width, width, bias=False) for _ in range(layers)))
    model.requires_grad_(False).eval()
    prepare(model, QuantConfig("test", [Rule(weight=WeightSpec(4), activation=ActivationSpec(8))]))
    set_precision(model, Precision.rules)
    freeze(model)
    graph, x = Graph(half=True, opset=opset), "x"
    for number, layer in enumerate(model):
        x = add_product(graph, x, weight_of(layer, f"layer{number}"), layer, Encoding.w4a8)
    body = onnx.helper.make_graph(
        graph.nodes,
        "test",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["T", width])],
        [onnx.helper.make_tensor_value_info(x, onnx.TensorProto.FLOAT, None)],
        list(graph.constants.values()),
    )
    opsets = [onnx.helper.make_opsetid("", opset), onnx.helper.make_opsetid(MICROSOFT, 1)]
    file = tmp_path / "model.onnx"
    onnx.save(onnx.helper.make_model(body, opset_imports=opsets, ir_version=10), file)
    done = subprocess.run([sys.executable, "-c", LOADED, str(file)], capture_output=True, text=True, check=True)
    assert int(done.stdout) < bytes_a_weight * layers * width**2


@pytest.mark.parametrize("opset", [17, 21])
@pytest.mark.parametrize(("bits", "bytes_"), [(2, 500), (4, 500), (5, 1000), (8, 1000)])
def test_four_bits_are_four_bits(bits: int, bytes_: int, opset: int) -> None:
    graph = Graph(half=True, opset=opset)
    add_codes(graph, weight(WeightSpec(bits), 10, 100), packed=True)
    assert sum(len(constant.raw_data) for constant in graph.constants.values() if len(constant.raw_data) > 99) == bytes_


def test_the_first_half_of_the_rows_lies_in_the_low_nibbles() -> None:
    assert pack_halves(np.array([[1, 2], [3, 4]])).tolist() == [[0x31, 0x42]]
    assert pack_halves(np.array([[7], [8], [9]])).tolist() == [[0x97], [0x08]]


def test_parameters_are_stored_in_16_bits_where_weights_are_integers() -> None:
    values = np.array([1.0, 1 / 3], dtype=np.float32)
    exact, half = Graph(half=False, opset=17), Graph(half=True, opset=17)
    assert exact.parameter("p", values) == "p"
    assert [len(graph.constants["p"].raw_data) for graph in (exact, half) if graph.parameter("p", values)] == [8, 4]
    with pytest.raises(UserError, match=r"p has values that float16 cannot hold \(largest 70000\)"):
        half.parameter("p", np.array([7e4], dtype=np.float32))
