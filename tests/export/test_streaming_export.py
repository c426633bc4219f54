"""A model that streams, rounded and exported: in ONNX Runtime and in the real sherpa-onnx, chunk by chunk."""

from pathlib import Path

import pytest
import torch
from exports import heard_in_dev_tiny

from nibble.config import portable
from nibble.conventions import SAMPLE_RATE_HZ
from nibble.evaluation.sherpa import with_silence
from nibble.export.options import Encoding
from nibble.export.parity import compare_bundle
from nibble.model.chunks import Chunks
from nibble.model.streaming_search import Stream
from nibble.quant.convert import prepare, set_precision
from nibble.quant.rules import coverage
from nibble.quant.spec import (
    ActivationGranularity,
    ActivationSpec,
    Arithmetic,
    Precision,
    QuantConfig,
    Rule,
    WeightSpec,
)
from nibble.runs.bundle import read_bundle, write_bundle
from nibble.runs.frozen import frozen_copy

CHUNK, LEFT = 8, 16  # frames of the fitted model
CHUNKS = Chunks(CHUNK, factor=4, look_ahead=3)
FIRST_CHUNK_SAMPLES = 5_880  # as nibble.bench.streaming counts them


@pytest.fixture
def needs_onnx() -> None:
    for package in ("onnx", "onnxruntime"):
        pytest.importorskip(package, reason=f"{package} is not installed: pip install -e '.[export]'")


@pytest.fixture(scope="session")
def sherpa_onnx():
    return pytest.importorskip("sherpa_onnx", reason="sherpa-onnx is not installed: pip install -e '.[export]'")


@pytest.mark.parametrize("granularity", list(ActivationGranularity))
@pytest.mark.parametrize("arithmetic", [Arithmetic.native, Arithmetic.fake])
def test_rounded_too_chunk_by_chunk_is_the_whole(fitted, granularity, arithmetic) -> None:
    """Scales of activations are per token, and those of convolutions per chunk, in both."""
    model = frozen_copy(fitted("stateless", None, CHUNK).model)
    rule = Rule(weight=WeightSpec(4), activation=ActivationSpec(granularity=granularity))
    prepare(model, QuantConfig("int4", [rule], arithmetic=arithmetic))
    set_precision(model, Precision.rules)
    features = speech(model, 3, 300)
    with torch.no_grad():
        whole, lengths = model.encode(features, torch.tensor([300, 171, 40]))
        rows = CHUNKS.rows(CHUNKS.whole(features, torch.tensor([300, 171, 40]))).unflatten(0, (3, -1))
        memory, streamed = model.encoder.start(3, features.device), []
        for number, chunk in enumerate(rows.unbind(1)):
            out, memory = model.encoder.step(chunk, memory, torch.full((3,), CHUNK * number))
            streamed.append(out)
    for row, length in enumerate(lengths.tolist()):
        torch.testing.assert_close(torch.cat(streamed, 1)[row, :length], whole[row, :length], atol=1e-5, rtol=1e-5)


def test_what_stays_in_16_bits_is_what_stays_in_whole_utterances(fitted) -> None:
    found = []
    for chunk in (CHUNK, None):
        covered = coverage(fitted("stateless", 4, chunk).model)
        assert {part.bits for part in covered} == {4, 16}
        found.append([part.name for part in covered if part.bits == 16])
    assert found[0] == found[1]
    kinds = {name.rpartition(".")[2] for name in found[0]}
    assert kinds == {"bias", "weight", "content_bias", "position_bias"}
    assert all("norm" in name for name in found[0] if name.endswith(".weight"))


def test_its_bundle_streams_the_same(fitted, tmp_path: Path) -> None:
    loaded = fitted("stateless", 4, CHUNK)
    write_bundle(loaded, tmp_path / "bundle")
    bundle = read_bundle(tmp_path / "bundle")
    assert bundle.config == portable(loaded.config)
    features = speech(loaded.model, 1, 100)
    streams = [Stream(model) for model in (bundle.model, loaded.model)]
    for stream in streams:
        stream.accept(features[0])
        stream.finish()
    assert streams[0].hypothesis.ids == streams[1].hypothesis.ids
    assert not any(row.equal is False for row in compare_bundle(loaded, bundle))


@pytest.mark.usefixtures("needs_onnx")
@pytest.mark.parametrize("encoding", list(Encoding))
def test_onnx_runtime_streams_what_torch_computes(exported, encoding: Encoding) -> None:
    from nibble.export.onnx.parity import compare_graphs
    from nibble.inference.onnx_transducer import onnx_transducer

    loaded, graphs, folder = exported("stateless", encoding, CHUNK)
    model = frozen_copy(loaded.model)
    features, sizes = speech(model, 2, 150), torch.tensor([150, 40])
    with torch.no_grad():
        encoded, lengths = model.encode(features, sizes)
        expected = model.joiner.project_encoder(encoded)
    found, found_lengths = onnx_transducer(folder, 1, loaded.tokenizer.size).encode(features, sizes)
    assert found_lengths.tolist() == lengths.tolist()
    for row, length in enumerate(lengths.tolist()):
        difference = (found[row, :length] - expected[row, :length]).abs()
        if encoding is Encoding.float:
            assert difference.max() < 1e-3
        else:  # the rest is in 16 bits, and flips of codes add up
            assert difference.mean() < 0.1 * expected.abs().mean()
    assert all(row.equal for row in compare_graphs(loaded, graphs) if row.bits is not None)


@pytest.mark.usefixtures("needs_onnx")
def test_the_encoder_says_what_sherpa_onnx_feeds_it(exported) -> None:
    from nibble.inference.onnx_session import session

    loaded, _, folder = exported("stateless", Encoding.w4a8, CHUNK)
    encoder = session(folder / "encoder.onnx", 1)
    said = encoder.get_modelmeta().custom_metadata_map
    width, kernel = 2 * loaded.config.model.width, loaded.config.model.kernel
    expected = {
        "model_type": "conformer",
        "num_encoder_layers": "1",
        "T": str(4 * CHUNK + 3),
        "decode_chunk_len": str(4 * CHUNK),
        "left_context": str(LEFT),
        "encoder_dim": str(width),
        "cnn_module_kernel": str((kernel + 1) // 2),
        "pad_length": "3",
    }
    assert {name: said[name] for name in expected} == expected
    assert {given.name: given.shape for given in encoder.get_inputs()} == {
        "x": ["N", 4 * CHUNK + 3, 80],
        "cached_attn": [1, LEFT, "N", width],
        "cached_conv": [1, (kernel - 1) // 2, "N", width],
        "processed_lens": ["N"],
    }


@pytest.mark.usefixtures("needs_onnx")
def test_positions_are_stored_once(exported) -> None:
    """They are constants of some size; the rest of the graph is hardly larger than that of whole utterances."""
    sizes = [exported("stateless", Encoding.w4a8, chunk)[1]["encoder"].model.ByteSize() for chunk in (CHUNK, None)]
    width = exported("stateless", Encoding.w4a8, CHUNK)[0].config.model.width
    assert abs(sizes[0] - sizes[1] - 4 * width * (LEFT + 2 * CHUNK)) < 2_000


@pytest.mark.usefixtures("needs_onnx")
@pytest.mark.parametrize(
    ("predictor", "encoding"), [*(("stateless", encoding) for encoding in Encoding), ("lstm", Encoding.w4a8)]
)
def test_sherpa_onnx_streams_what_torch_recognises(exported, sherpa_onnx, predictor, encoding, tmp_path: Path) -> None:
    """Several streams at once, fed in pieces of 0.1 s."""
    loaded, _, folder = exported(predictor, encoding, CHUNK)
    recogniser = online(sherpa_onnx, folder)
    batch, expected = heard_in_dev_tiny(loaded, tmp_path)
    streams = [recogniser.create_stream() for _ in batch.ids]
    pieces = [with_silence(samples, CHUNKS).split(SAMPLE_RATE_HZ // 10) for samples in batch.samples]
    for number in range(max(map(len, pieces)) + 1):
        for stream, own in zip(streams, pieces, strict=True):
            if number < len(own):
                stream.accept_waveform(SAMPLE_RATE_HZ, own[number].numpy())
            if number == len(own):
                stream.input_finished()
        while ready := [stream for stream in streams if recogniser.is_ready(stream)]:
            recogniser.decode_streams(ready)
    assert [recogniser.tokens(stream) for stream in streams] == [tokens for tokens, _ in expected]
    for stream, (_, times_s) in zip(streams, expected, strict=True):
        assert recogniser.timestamps(stream) == pytest.approx(times_s)


@pytest.mark.usefixtures("needs_onnx")
@pytest.mark.parametrize("predictor", ["stateless", "lstm"])
def test_silence_ends_an_utterance_when_sherpa_onnx_says_it_does(exported, sherpa_onnx, predictor: str) -> None:
    """After 2.4 s, or 1.2 s where something was said: with the chunk in which they have passed, not the one before."""
    folder = exported(predictor, Encoding.w4a8, CHUNK)[2]
    recogniser = online(sherpa_onnx, folder, enable_endpoint_detection=True)
    stream = recogniser.create_stream()
    chunk_s = 4 * CHUNK / 100
    chunks = 0
    while not recogniser.is_endpoint(stream):
        while not recogniser.is_ready(stream):
            stream.accept_waveform(SAMPLE_RATE_HZ, torch.zeros(SAMPLE_RATE_HZ // 100).numpy())
        recogniser.decode_stream(stream)
        chunks += 1
    times_s = recogniser.timestamps(stream)
    silence_s = chunks * chunk_s - (times_s[-1] + 0.04 if times_s else 0)
    needed_s = 1.2 if times_s else 2.4
    assert needed_s <= silence_s + 1e-6 < needed_s + chunk_s


@pytest.mark.usefixtures("needs_onnx")
def test_when_sherpa_onnx_begins(exported, sherpa_onnx) -> None:
    """A frame after the first chunk's 4 c + 3: number 35 begins 80 - 200 samples after 35 x 160, and has 400."""
    assert CHUNKS.feature_frames() == 35
    recogniser = online(sherpa_onnx, exported("stateless", Encoding.w4a8, CHUNK)[2])
    stream = recogniser.create_stream()
    stream.accept_waveform(SAMPLE_RATE_HZ, torch.zeros(FIRST_CHUNK_SAMPLES - 1).numpy())
    assert not recogniser.is_ready(stream)
    stream.accept_waveform(SAMPLE_RATE_HZ, torch.zeros(1).numpy())
    assert recogniser.is_ready(stream)


def online(sherpa_onnx, folder: Path, **options):
    files = {name: str(folder / f"{name}.onnx") for name in ("encoder", "decoder", "joiner")}
    return sherpa_onnx.OnlineRecognizer.from_transducer(
        **files, tokens=str(folder / "tokens.txt"), num_threads=1, **options
    )


def speech(model, utterances: int, frames: int) -> torch.Tensor:
    """Noise with the mean and variance of the training speech."""
    norm = model.encoder.normalization
    features = torch.randn(utterances, frames, 80, generator=torch.Generator().manual_seed(0))
    return features * norm.running_var.sqrt() + norm.running_mean
