"""What is timed of a model that streams, and how long one waits for the first chunk."""

import pytest
import torch

pytest.importorskip("onnx", reason="onnx is not installed: pip install -e '.[export]'")

from nibble import packages
from nibble.bench import streaming
from nibble.errors import UserError
from nibble.export.options import Encoding
from nibble.model.chunks import Chunks


def test_a_small_model() -> None:
    pytest.importorskip("sherpa_onnx", reason="sherpa-onnx is not installed: pip install -e '.[export]'")
    threads = torch.get_num_threads()
    found = streaming.measure(("conformer_stream_xs",), (Encoding.float, Encoding.w4a8), rounds=2)
    assert torch.get_num_threads() == threads
    chunks = {(one.contender.split(",")[0], one.baseline): one for one in found if "a chunk of 320 ms" in one.case}
    first = {
        (one.contender.split(",")[0], one.baseline): one for one in found if "after a wait of 367.5 ms" in one.case
    }
    assert len(chunks) + len(first) == len(found) == 6
    assert {(one.bench, one.threads, one.clock) for one in found} == {("streaming", 1, "cpu")}
    assert {contender for contender, baseline in chunks if baseline == streaming.AUDIO} == {"float", "w4a8", "int4"}
    for contender in ("float", "w4a8"):
        chunk, begun = (of[contender, streaming.AUDIO] for of in (chunks, first))
        assert chunk.ratio == pytest.approx(chunk.median_ms / 320)
        assert 0 < chunk.ratio < 1
        assert begun.median_ms > 367.5
        assert begun.ratio == pytest.approx(begun.median_ms / 367.5)
    (against_float,) = (one for one in chunks.values() if one.baseline.startswith("float"))
    assert against_float.contender.startswith("w4a8")
    assert chunks["float", streaming.AUDIO].bytes > 2 * against_float.bytes


def test_without_sherpa_onnx(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "find_spec", lambda package: None if package == "sherpa_onnx" else object())
    with pytest.raises(UserError, match=r"python -m nibble\.bench streaming needs sherpa-onnx: pip install"):
        streaming.measure()


@pytest.mark.parametrize(("chunk", "samples"), [(8, 5_880), (16, 11_000)])
def test_the_wait_for_a_chunk(chunk: int, samples: int) -> None:
    """tests/export/test_streaming_export.py holds the first against sherpa-onnx itself."""
    assert streaming.first_chunk_samples(Chunks(chunk, factor=4, look_ahead=3)) == samples
