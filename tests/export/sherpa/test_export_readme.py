"""README.md of an exported folder says all that its user must know, of each kind of model."""

from dataclasses import replace

import pytest

pytest.importorskip("onnx", reason="onnx is not installed: pip install -e '.[export]'")

from nibble.export.options import Encoding
from nibble.export.sherpa.readme import readme
from nibble.model.streaming_encoder import StreamingEncoder
from nibble.runs.checkpoint import load_checkpoint
from nibble.runs.loaded import Loaded, float_parameters

SECTIONS = {"Append", "Times", "Hotwords", "Length", "Version", "Size", "Memory"}


def sections(text: str) -> dict[str, str]:
    """The paragraphs after the lines to type, by the first of their bold words."""
    paragraphs = text.rpartition("```\n")[2].strip().split("\n\n")
    return {paragraph.removeprefix("**").split("**")[0].split()[0].rstrip(":"): paragraph for paragraph in paragraphs}


def test_of_whole_utterances(write_run) -> None:
    loaded = load_checkpoint(write_run("int4", "rules"))
    text = readme(loaded, Encoding.w4a8, opset=21, labels_per_frame=1, size_bytes=12_345_678)
    assert text.startswith("# tiny at int4, encoded as w4a8, for sherpa-onnx\n")
    assert "trained on tiny, its weights trained at this precision" in text
    assert "OfflineRecognizer.from_transducer" in text
    assert "new sherpa.OfflineRecognizer" in text
    said = sections(text)
    assert said.keys() == SECTIONS
    assert said["Append"].startswith("**Append** nothing")
    assert "frame of 40 ms" in said["Times"]
    assert f"up to {loaded.config.data.max_duration_s:g} s at a time" in said["Length"]
    assert "sherpa-onnx 1.12.20 or later" in said["Version"]
    assert "opset=17" in said["Version"]
    assert "12.3 MB together" in said["Size"]
    weights = float_parameters(loaded.config, loaded.tokenizer.size)
    assert f"one byte, unpacked when it loads: {weights / 1e6:.3g} MB for the {weights:,} of" in said["Memory"]


@pytest.fixture
def streaming(write_run) -> Loaded:
    return load_checkpoint(write_run("int4", "rules", options=("model.chunk_frames=8",)))


def test_of_streams(streaming: Loaded) -> None:
    text = readme(streaming, Encoding.w4a8, opset=21, labels_per_frame=1, size_bytes=10**6)
    assert "OnlineRecognizer.from_transducer" in text
    assert "new sherpa.OnlineRecognizer" in text
    said = sections(text)
    assert said.keys() == SECTIONS | {"Endpoints"}
    assert "Append 0.37 s of silence" in said["Append"]
    assert "in chunks of 0.32 s" in said["Append"]
    assert "appends 0.8 s itself (0.3 s in old versions), which is enough" in said["Append"]
    assert "2.4 s of silence are 2.4 s" in said["Endpoints"]
    assert said["Length"].startswith("**Length**: any")


def test_a_chunk_for_which_the_program_appends_too_little(streaming: Loaded) -> None:
    encoder = streaming.model.encoder
    assert isinstance(encoder, StreamingEncoder)
    encoder.chunks = replace(encoder.chunks, frames=32)
    said = sections(readme(streaming, Encoding.w4a8, opset=21, labels_per_frame=1, size_bytes=10**6))["Append"]
    assert "Append 1.33 s of silence" in said
    assert "which is too little: append the rest to the file" in said


@pytest.mark.parametrize(
    ("opset", "durations", "text"),
    [
        (17, 0, "any sherpa-onnx whose ONNX Runtime reads files of opset 17"),
        (17, 4, "sherpa-onnx 1.11.5 or later, because the model predicts durations"),
        (21, 4, "sherpa-onnx 1.12.20 or later (ONNX Runtime 1.23.2), because the weights are stored in 4 bits"),
    ],
)
def test_the_least_version(write_run, opset: int, durations: int, text: str) -> None:
    loaded = load_checkpoint(write_run())
    config = replace(loaded.config, model=replace(loaded.config.model, max_duration_frames=durations))
    said = readme(replace(loaded, config=config), Encoding.w8a8, opset, labels_per_frame=1, size_bytes=10**6)
    assert text in sections(said)["Version"]
