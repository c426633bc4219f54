"""The parity report finds what it is for."""

import io
from dataclasses import replace

import pytest

pytest.importorskip("onnx", reason="onnx is not installed: pip install -e '.[export]'")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: pip install -e '.[export]'")

import onnx

from nibble.export.onnx.graphs import ExportedGraph, export_graphs
from nibble.export.onnx.parity import compare_graphs
from nibble.export.options import Encoding
from nibble.export.parity import compare_bundle, parity_table
from nibble.quant.spec import ActivationSpec, LowRank, QuantConfig, Rule, WeightSpec
from nibble.runs.checkpoint import load_checkpoint, quantize
from nibble.runs.frozen import frozen_copy
from nibble.terminal import Console

BITS = {Encoding.float: set(), Encoding.w8a8: {8}, Encoding.w4a8: {4}, Encoding.w4: {4}}


@pytest.mark.parametrize("encoding", list(Encoding))
def test_every_layer_holds_the_same_integers_and_computes_the_same(exported, encoding: Encoding) -> None:
    loaded, graphs, _ = exported("lstm", encoding)
    rows = compare_graphs(loaded, graphs)
    names = {row.layer for row in rows}
    assert {"encoder.subsampling.conv1", "encoder.blocks.0.attention.position", "predictor.lstm"} <= names
    assert {"predictor.embedding", "joiner.encoder", "joiner.predictor", "joiner.output"} <= names
    quantized = encoding is not Encoding.float
    floats = {"encoder.normalization", "encoder.blocks.0.convolution.batch_norm"} if quantized else names
    assert {row.layer for row in rows if row.equal is None} == {row.layer for row in rows if row.bits is None} == floats
    assert all(row.equal for row in rows if row.layer not in floats)
    assert {row.bits for row in rows if row.layer not in floats} == BITS[encoding]
    for row in rows:
        # Biases are in 16 bits, and ONNX Runtime's LSTM quantizes its input and state for itself.
        allowed = 0.05 if row.layer == "predictor.lstm" or encoding is Encoding.w4 else 1e-3
        assert row.mean_difference < (allowed if quantized else 1e-5) * row.mean_output, row.layer


@pytest.mark.parametrize("encoding", [Encoding.w8a8, Encoding.w4a8, Encoding.w4])
def test_one_other_bit_is_seen(exported, encoding: Encoding) -> None:
    loaded, graphs, _ = exported("stateless", encoding)
    model = onnx.ModelProto()
    model.CopyFrom(graphs["joiner"].model)
    names = [f"joiner.output.weight_{what}" for what in ("codes_turned", "codes_turned_int4", "blocks")]
    (stored,) = (constant for constant in model.graph.initializer if constant.name in names)
    stored.raw_data = bytes([stored.raw_data[0] ^ 0x01]) + stored.raw_data[1:]
    changed = {**graphs, "joiner": ExportedGraph(model, graphs["joiner"].sites)}
    rows = compare_graphs(loaded, changed)
    assert [row.layer for row in rows if row.equal is False] == ["joiner.output"]
    console = Console(width=140, record=True, file=io.StringIO())
    console.print(parity_table(rows, "title"))
    text = console.export_text()
    assert "differ" in text
    integers = sum(row.bits is not None for row in rows)
    assert f"{integers - 1} of {integers} equal" in text
    assert "encoder.blocks.0.feed_forward1.expansion" in text


def test_a_layer_that_computes_something_else_is_seen(exported) -> None:
    loaded, graphs, _ = exported("stateless", Encoding.float)
    model = onnx.ModelProto()
    model.CopyFrom(graphs["joiner"].model)
    for constant in model.graph.initializer:
        if constant.name == "joiner.output.bias":
            constant.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(constant) + 1, constant.name))
    rows = compare_graphs(loaded, {**graphs, "joiner": graphs["joiner"]._replace(model=model)})
    differing = {row.layer: row for row in rows if row.mean_difference > 1e-3}
    assert differing.keys() == {"joiner.output"}
    assert differing["joiner.output"].mean_difference == pytest.approx(1, rel=1e-4)


def test_factors_are_layers(write_run) -> None:
    """A layer whose input is another layer's output."""
    rules = [Rule(weight=WeightSpec(4), activation=ActivationSpec())]
    factors = QuantConfig("int4_lowrank", rules, low_rank=[LowRank("**.feed_forward*.*", 0.5)])
    loaded = quantize(load_checkpoint(write_run()), factors)
    rows = compare_graphs(loaded, export_graphs(loaded, Encoding.w4a8))
    assert {"encoder.blocks.0.feed_forward1.expansion.first", "encoder.blocks.0.feed_forward1.expansion.second"} <= {
        row.layer for row in rows
    }
    assert all(row.equal for row in rows if row.bits is not None)


def test_a_bundle_with_one_other_integer(fitted) -> None:
    loaded = fitted("lstm", 4)
    other = replace(loaded, model=frozen_copy(loaded.model))
    assert all(row.equal is not False and row.largest_difference == 0 for row in compare_bundle(loaded, other))
    other.model.predictor.lstm.weight_hh_l0_codes[0, 0] += 1
    rows = {row.layer: row for row in compare_bundle(loaded, other)}
    assert [name for name, row in rows.items() if row.equal is False] == ["predictor.lstm"]
    assert rows["predictor.lstm"].largest_difference > 0
