"""Models with the options of other toolkits' Conformers compute the same rounded, bundled and exported."""

from pathlib import Path

import pytest
import torch

pytest.importorskip("onnx", reason="onnx is not installed: pip install -e '.[export]'")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: pip install -e '.[export]'")

from exports import INTEGERS

from nibble.errors import UserError
from nibble.export.onnx.graphs import export_graphs
from nibble.export.options import Encoding
from nibble.export.parity import compare_bundle
from nibble.export.sherpa.folder import export_folder
from nibble.features.options import FeatureKind
from nibble.inference.fused import fused_copy
from nibble.inference.onnx_transducer import onnx_transducer
from nibble.model.searchable import LabelState
from nibble.quant.rules import coverage
from nibble.quant.spec import QuantConfig
from nibble.runs.bundle import read_bundle, write_bundle
from nibble.runs.checkpoint import load_checkpoint, quantize
from nibble.runs.frozen import frozen_copy
from nibble.runs.loaded import Loaded

FASTCONFORMER = (
    *("model.subsampling=depthwise", "model.subsampling_factor=8", "model.subsampling_channels=16", "model.kernel=9"),
    *("model.predictor=lstm", "model.predictor_layers=2", "model.embedding_width=24", "model.joiner_activation=relu"),
    *("features.normalization=none", "model.dropout=0"),
)
NEMO_CONFORMER = ("model.subsampling=padded", "model.predictor=lstm", "model.joiner_activation=relu", "model.kernel=7")
ICEFALL = (
    *("model.convolution_norm=layer", "model.final_norm=true", "model.predictor=stateless_linear", "model.kernel=7"),
    *("features.normalization=none", "model.subsampling_channels=8"),
)
# These two leave as NeMo transducers.
HEARS_NEMO = (*FASTCONFORMER, "features.kind=nemo", "features.normalization=utterance")
STATELESS = ("features.kind=nemo", "features.normalization=corpus", "model.predictor=stateless", "model.kernel=7")
KINDS = {
    "fastconformer": FASTCONFORMER,
    "nemo conformer": NEMO_CONFORMER,
    "icefall": ICEFALL,
    "nemo": HEARS_NEMO,
    "stateless nemo": STATELESS,
}


@pytest.fixture(scope="module", params=KINDS)
def run(request: pytest.FixtureRequest, write_run) -> Path:
    return write_run(options=KINDS[request.param])


def rounded(run: Path, bits: int | None) -> Loaded:
    loaded = load_checkpoint(run)
    return loaded if bits is None else quantize(loaded, QuantConfig(f"int{bits}", INTEGERS[bits]))


def test_every_product_is_quantized_and_the_bundle_is_what_was_rounded(run: Path, tmp_path: Path) -> None:
    loaded = rounded(run, 4)
    in_16_bits = [part.name for part in coverage(loaded.model) if part.bits == 16]
    left = {name.rpartition(".")[2] for name in in_16_bits}
    assert left <= {"bias", "weight", "content_bias", "position_bias", "bias_ih_l0", "bias_hh_l0"}
    assert all(
        "norm" in part.name for part in coverage(loaded.model) if part.bits == 16 and part.name.endswith("weight")
    )
    write_bundle(loaded, tmp_path / "bundle")
    bundle = read_bundle(tmp_path / "bundle")
    rows = compare_bundle(loaded, bundle)
    assert all(row.equal for row in rows if row.equal is not None)
    assert max(row.largest_difference for row in rows) < 2e-2  # biases and norms are stored in 16 bits
    features, lengths = torch.randn(2, 120, 80), torch.tensor([120, 71])
    with torch.no_grad():
        encoded = frozen_copy(bundle.model).encode(features, lengths)[0]
        torch.testing.assert_close(fused_copy(bundle.model).encode(features, lengths)[0], encoded, atol=0.1, rtol=0.1)


@pytest.mark.parametrize("encoding", [Encoding.float, Encoding.w8a8, Encoding.w4a8])
def test_the_export_computes_what_torch_computes(run: Path, tmp_path: Path, encoding: Encoding) -> None:
    loaded = rounded(run, {Encoding.float: None, Encoding.w8a8: 8, Encoding.w4a8: 4}[encoding])
    export_folder(tmp_path / "sherpa", loaded, encoding)
    found, model = onnx_transducer(tmp_path / "sherpa", 1, loaded.tokenizer.size), frozen_copy(loaded.model)

    def check(got: torch.Tensor, expected: torch.Tensor) -> None:
        assert got.shape == expected.shape
        if encoding is Encoding.float:
            torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-4)
        else:  # flips of codes add up
            assert (got - expected).abs().mean() < 0.1 * expected.abs().mean()

    features = torch.randn(1, 150, 80, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for frames in (150, 64, 8, 1):
            encoded, lengths = model.encode(features[:, :frames], torch.tensor([frames]))
            got, got_lengths = found.encode(features[:, :frames], torch.tensor([frames]))
            # An icefall encoder gives a frame of 80 ms twice, since sherpa-onnx counts 40 ms.
            times = 1 if loaded.config.features.kind is FeatureKind.nemo else model.encoder.factor // 4
            assert got_lengths.tolist() == [times * int(lengths)]
            check(got[:, ::times], model.project(encoded))
        labels = torch.randint(2, 10, (2, 9), generator=torch.Generator().manual_seed(0))
        state, expected_state = (each.start_labels(2, labels.device) for each in (found, model))
        for label in labels.unbind(1):
            state, expected_state = found.append_label(label, state), model.append_label(label, expected_state)
            width = expected_state.predicted.size(1)  # the export may have labels beside it: it gives pairs of them
            check(state.predicted[:, :width], expected_state.predicted)
        frame = model.project(encoded)[0, 0]
        beside = state.predicted[:, width:].new_zeros(2, state.predicted.size(1) - width)
        logits = found.label_logits(frame, LabelState(torch.cat((expected_state.predicted, beside), dim=1), ()))
        check(logits, model.label_logits(frame, expected_state))


STREAMING_NEMO = ("model.chunk_frames=4", "features.kind=nemo")


@pytest.mark.parametrize("options", [STREAMING_NEMO, ("features.normalization=utterance",)])
def test_features_that_sherpa_onnx_would_not_compute_are_refused(write_run, options: tuple[str, ...]) -> None:
    with pytest.raises(
        UserError, match=r"(features\.kind=.* and features\.normalization=|streams and hears NeMo's).*bundle"
    ):
        export_graphs(load_checkpoint(write_run(options=options)), Encoding.float)
