"""The three graphs of a whole model."""

import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("onnx", reason="onnx is not installed: pip install -e '.[export]'")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: pip install -e '.[export]'")

import onnx

from nibble.errors import UserError
from nibble.export.onnx.graphs import choose_encoding, export_graphs
from nibble.export.options import Encoding
from nibble.export.sherpa.graphs import REPLAYED
from nibble.inference.onnx_session import session
from nibble.inference.onnx_transducer import onnx_transducer
from nibble.model.searchable import LabelState
from nibble.quant.analog_spec import AnalogSpec
from nibble.quant.convert import quantized_modules
from nibble.quant.spec import ActivationSpec, QuantConfig, Rule, WeightSpec
from nibble.runs.checkpoint import load_checkpoint, quantize
from nibble.runs.frozen import frozen_copy


@pytest.mark.parametrize("predictor", ["stateless", "lstm"])
@pytest.mark.parametrize("encoding", list(Encoding))
def test_the_network_computes_what_torch_computes(exported, predictor: str, encoding: Encoding) -> None:
    """Within float rounding; where activations are integers, a few per cent on average: flips of codes add up."""
    loaded, _, folder = exported(predictor, encoding)
    model, exported_model = frozen_copy(loaded.model), onnx_transducer(folder, 1, loaded.tokenizer.size)
    if encoding is Encoding.w4:  # in torch too the weights alone are integers
        quant = QuantConfig("int4w", [Rule(weight=WeightSpec(4))])
        model = frozen_copy(quantize(load_checkpoint(loaded.path), quant).model)
    if encoding is not Encoding.float:
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                tensor.copy_(tensor.half())

    def check(found: torch.Tensor, expected: torch.Tensor) -> None:
        difference = (found - expected).abs()
        if encoding in (Encoding.w8a8, Encoding.w4a8):
            assert difference.mean() < 0.1 * expected.abs().mean()
        else:
            assert difference.max() < 1e-3

    norm = model.encoder.normalization
    features = torch.randn(1, 90, 80, generator=torch.Generator().manual_seed(0))
    features = features * norm.running_var.sqrt() + norm.running_mean
    with torch.no_grad():
        for frames in (90, 30, 7, 6, 1):
            length = torch.tensor([frames])
            encoded, lengths = model.encode(features[:, :frames], length)
            found, found_lengths = exported_model.encode(features[:, :frames], length)
            assert found_lengths.tolist() == lengths.tolist()
            check(found, model.joiner.project_encoder(encoded))
        labels = torch.randint(2, 10, (3, REPLAYED - 1), generator=torch.Generator().manual_seed(0))
        expected = model.joiner.project_predictor(model.predict(labels))
        state, width = exported_model.start_labels(3, torch.device("cpu")), expected.size(2)
        check(state.predicted[:, :width], expected[:, 0])
        for position, label in enumerate(labels.unbind(1), start=1):
            state = exported_model.append_label(label, state)
            check(state.predicted[:, :width], expected[:, position])
        beside = torch.zeros(3, state.predicted.size(1) - width)  # labels, if the export has pairs of them
        found = exported_model.label_logits(expected[:, 0], LabelState(torch.cat((expected[:, 1], beside), dim=1), ()))
        check(found, model.joiner.combine(expected[:, 0], expected[:, 1]))


@pytest.mark.parametrize("encoding", list(Encoding))
def test_padding_of_a_batch_changes_nothing(exported, encoding: Encoding) -> None:
    loaded, _, folder = exported("stateless", encoding)
    model = onnx_transducer(folder, 1, loaded.tokenizer.size)
    features = torch.randn(2, 90, 80, generator=torch.Generator().manual_seed(0))
    features[0] *= 100  # a neighbour that an utterance must not depend on
    together, lengths = model.encode(features, torch.tensor([90, 50]))
    alone, _ = model.encode(features[1:, :50], torch.tensor([50]))
    assert torch.allclose(together[1:, : lengths[1]], alone, atol=1e-5)


@pytest.mark.parametrize("wrong", ["lengths", "metadata", "labels"])
def test_a_graph_that_does_not_give_what_a_search_needs(exported, tmp_path: Path, wrong: str) -> None:
    loaded, graphs, whole = exported("stateless", Encoding.w4a8)
    folder, labels = Path(shutil.copytree(whole, tmp_path / "folder")), loaded.tokenizer.size
    if wrong == "lengths":
        model = onnx.ModelProto()
        model.CopyFrom(graphs["encoder"].model)
        name = model.graph.output[1].name
        for node in model.graph.node:
            node.output[:] = ["before" if output == name else output for output in node.output]
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(1_000), "many"))
        model.graph.node.append(onnx.helper.make_node("Add", ["before", "many"], [name]))
        (folder / "encoder.onnx").write_bytes(model.SerializeToString())
    elif wrong == "metadata":
        content = (folder / "decoder.onnx").read_bytes()
        (folder / "decoder.onnx").write_bytes(content.replace(b"context_size", b"\xff\xfentext_size"))
    message = {"lengths": "encoder.onnx gives .* with lengths", "metadata": "is no text", "labels": "joiner.onnx gives"}
    with pytest.raises(UserError, match=f"(?s){message[wrong]}.*export it again"):
        one_step(folder, labels + (wrong == "labels"))


def one_step(folder: Path, labels: int) -> None:
    model = onnx_transducer(folder, 1, labels)
    encoded, _ = model.encode(torch.randn(1, 90, 80), torch.tensor([90]))
    model.label_logits(encoded[:, 0], model.start_labels(1, encoded.device))


def test_scores_by_distance_are_a_product(exported) -> None:
    """ONNX Runtime takes twice as long for the Einsum that torch's exporter writes."""
    _, graphs, _ = exported("stateless", Encoding.float)
    assert "Einsum" not in {node.op_type for node in graphs["encoder"].model.graph.node}


def test_a_block_has_hardly_any_arithmetic_of_shapes(exported) -> None:
    """What a person reads in Netron: the layers, and what shifts the scores by distance."""
    loaded, graphs, _ = exported("stateless", Encoding.w4a8)
    counts = Counter(node.op_type for node in graphs["encoder"].model.graph.node)
    blocks, outside = len(loaded.model.encoder.blocks), 10
    assert counts["Identity"] == 0
    assert counts["Shape"] <= blocks + outside
    assert counts["Concat"] <= 2 * blocks + outside
    assert counts["Reshape"] <= 8 * blocks + outside
    assert sum(counts.values()) < 250 * blocks + 200


def test_query_key_and_value_share_their_codes(exported) -> None:
    _, graphs, _ = exported("stateless", Encoding.w4a8)
    encoder = graphs["encoder"]
    nodes = {output: node for node in encoder.model.graph.node for output in node.output}
    codes = {
        layer.rpartition(".")[2]: next(
            node.input[0]
            for node in nodes.values()
            if node.op_type == "MatMulIntegerToFloat" and node.input[1].startswith(layer)
        )
        for layer in encoder.sites
        if ".attention." in layer
    }
    assert codes["query"] == codes["key"] == codes["value"] != codes["position"]


@pytest.mark.parametrize(("predictor", "context"), [("stateless", "2"), ("lstm", str(REPLAYED))])
def test_sherpa_onnx_finds_its_metadata(exported, predictor: str, context: str) -> None:
    loaded, graphs, folder = exported(predictor, Encoding.w4a8)
    found = {
        name: session(folder / f"{name}.onnx", 1).get_modelmeta().custom_metadata_map
        for name in ("encoder", "decoder", "joiner")
    }
    assert found["encoder"]["model_type"] == "conformer"
    assert found["decoder"]["context_size"] == context
    pairs = (loaded.tokenizer.size - 2) ** 2 if predictor == "stateless" else 0
    assert found["decoder"]["vocab_size"] == str(loaded.tokenizer.size + pairs)
    assert found["joiner"]["joiner_dim"] == "32"
    for graph in graphs.values():
        onnx.checker.check_model(graph.model)
        assert {opset.domain: opset.version for opset in graph.model.opset_import}[""] == 21


def test_an_encoding_takes_the_bits_that_it_says(exported) -> None:
    """All weights of four files, in their bits, and little more than 16 bits for the rest."""
    sizes, weights = {}, 0
    for encoding in Encoding:
        loaded, graphs, _ = exported("lstm", encoding)
        constants = [constant for graph in graphs.values() for constant in graph.model.graph.initializer]
        sizes[encoding] = sum(len(constant.raw_data) for constant in constants)
        frozen = quantized_modules(frozen_copy(loaded.model)).values()
        weights = sum(one.codes.numel() for module in frozen for one in module.frozen_weights().values()) or weights
    assert weights > 25_000
    assert 4 * weights < sizes[Encoding.float]
    assert weights < sizes[Encoding.w8a8] < 1.3 * weights
    assert weights / 2 < sizes[Encoding.w4a8] < 0.8 * weights
    assert weights / 2 < sizes[Encoding.w4] < 0.8 * weights
    assert sizes[Encoding.w8a8] - sizes[Encoding.w4a8] == pytest.approx(weights / 2, rel=0.03)


def test_the_model_that_is_exported_stays_as_it_is(fitted) -> None:
    loaded = fitted("stateless", 4)
    before = {name: tensor.clone() for name, tensor in loaded.model.state_dict().items()}
    export_graphs(loaded, Encoding.w4a8)
    assert all(torch.equal(tensor, before[name]) for name, tensor in loaded.model.state_dict().items())
    assert not any(module.frozen for module in quantized_modules(loaded.model).values())


def test_what_suits_the_weights_is_the_default(fitted) -> None:
    assert choose_encoding(fitted("stateless", None), None) is Encoding.float
    assert choose_encoding(fitted("stateless", 4), None) is Encoding.w4a8
    assert choose_encoding(fitted("stateless", 8), None) is Encoding.w8a8
    assert choose_encoding(fitted("stateless", 4), Encoding.w8a8) is Encoding.w8a8
    mixed = [Rule("encoder.**", WeightSpec(4), ActivationSpec()), Rule("**", WeightSpec(8), ActivationSpec())]
    assert choose_encoding(quantize(fitted("stateless", None), QuantConfig("mixed", mixed)), None) is Encoding.w4a8


@pytest.mark.parametrize(
    ("bits", "encoding", "text"),
    [
        (None, Encoding.w4a8, "has float weights, which encoding=w4a8 would have to round; say how with quant=int4"),
        (None, Encoding.w8a8, "say how with quant=int8"),
        (8, Encoding.w4, "is at int8, with weights of 8 bits, which encoding=w4 cannot hold in 4; give encoding=w8a8"),
    ],
)
def test_weights_that_an_encoding_cannot_hold(fitted, bits: int | None, encoding: Encoding, text: str) -> None:
    with pytest.raises(UserError, match=text):
        choose_encoding(fitted("stateless", bits), encoding)


@pytest.mark.parametrize("encoding", [None, *Encoding])
def test_analog_weights_that_no_encoding_can_hold(write_run, encoding: Encoding | None) -> None:
    analog = QuantConfig(
        "analog", [Rule("encoder.blocks.*.feed_forward*.*", None, ActivationSpec(), analog=AnalogSpec(2))]
    )
    loaded = quantize(load_checkpoint(write_run()), analog)
    with pytest.raises(UserError, match=r"is at analog, which simulates analog memory .* give target=bundle"):
        choose_encoding(loaded, encoding)


def test_layers_of_more_bits_are_stored_in_bytes(fitted) -> None:
    rules = [Rule("joiner.**", WeightSpec(8), ActivationSpec()), Rule("**", WeightSpec(4), ActivationSpec())]
    loaded = quantize(fitted("stateless", None), QuantConfig("mixed", rules))
    graphs = export_graphs(loaded, Encoding.w4a8)
    joiner = {constant.name: constant for constant in graphs["joiner"].model.graph.initializer}
    assert joiner["joiner.output.weight_codes_turned"].data_type == onnx.TensorProto.INT8
    decoder = {constant.name for constant in graphs["decoder"].model.graph.initializer}
    assert "predictor.projection.weight_codes_turned_int4" in decoder


def test_each_frame_once(fitted) -> None:
    graphs = export_graphs(fitted("stateless", None), Encoding.float)
    encoder = session(graphs["encoder"].model.SerializeToString(), 1)
    encoded, lengths = encoder.run(None, {"x": np.zeros((1, 43, 80), np.float32), "x_lens": np.array([43])})
    assert encoded.shape[1] == lengths[0] == 10


def test_values_beyond_16_bits(fitted) -> None:
    loaded = fitted("stateless", 4)
    model = frozen_copy(loaded.model)
    model.encoder.blocks[0].norm.weight[0] = 1e6
    with pytest.raises(UserError, match=r"encoder.blocks.0.norm.weight has values that float16 cannot hold"):
        export_graphs(replace(loaded, model=model), Encoding.w4a8)
