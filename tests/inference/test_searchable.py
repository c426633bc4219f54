"""What a search may rely on: every `Searchable` keeps the same contract."""

from collections.abc import Callable

import pytest
import torch

from nibble.export.options import Encoding
from nibble.inference.fused import fused_copy
from nibble.model.decoding import beam, greedy
from nibble.model.searchable import Searchable
from nibble.runs.frozen import frozen_copy

MEL_BINS = 80


def onnx(exported, predictor: str, encoding: Encoding, chunk: int | None = None) -> Searchable:
    loaded, _, folder = exported(predictor, encoding, chunk)
    from nibble.inference.onnx_transducer import onnx_transducer

    return onnx_transducer(folder, 1, loaded.tokenizer.size)


MADE: dict[str, Callable] = {
    "float network": lambda fitted, _: fitted("lstm", None).model,
    "int4 network": lambda fitted, _: frozen_copy(fitted("stateless", 4).model),
    "fused network": lambda fitted, _: fused_copy(fitted("stateless", 4).model),
    "streaming network": lambda fitted, _: fitted("stateless", None, 8).model,
    "float ONNX folder": lambda _, exported: onnx(exported, "lstm", Encoding.float),
    "int4 ONNX folder": lambda _, exported: onnx(exported, "stateless", Encoding.w4a8),
    "streaming ONNX folder": lambda _, exported: onnx(exported, "stateless", Encoding.float, 8),
}


@pytest.fixture(params=MADE)
def model(request: pytest.FixtureRequest, fitted) -> Searchable:
    if "ONNX" in request.param:
        pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: pip install -e '.[export]'")
    exported = request.getfixturevalue("exported") if "ONNX" in request.param else None
    return MADE[request.param](fitted, exported)


@torch.inference_mode()
def test_an_utterance_and_a_row_do_not_depend_on_the_others(model: Searchable) -> None:
    torch.manual_seed(0)
    features, lengths = torch.randn(2, 90, MEL_BINS), torch.tensor([90, 50])
    encoded, encoded_lengths = model.encode(features, lengths)
    assert encoded.shape[:2] == (2, int(encoded_lengths.max()))
    alone, alone_lengths = model.encode(features[1:, :50], lengths[1:])
    assert alone_lengths.tolist() == encoded_lengths[1:].tolist()
    assert torch.allclose(encoded[1:, : alone_lengths[0]], alone, atol=1e-4)

    frames = model.project(encoded)[:, 0]  # (B, J)
    state = model.start_labels(2, frames.device)
    assert len(state.predicted) == len(frames)
    for label in (torch.tensor([2, 3]), torch.tensor([3, 3])):
        state = model.append_label(label, state)
    logits = model.label_logits(frames, state)
    assert logits.dim() == 2
    row = torch.tensor([1])
    assert torch.allclose(model.label_logits(frames[row], state.select(row)), logits[row], atol=1e-4)
    for_all = model.label_logits(frames[1], state)  # one frame for every hypothesis
    assert torch.allclose(for_all[row], logits[row], atol=1e-4)

    before = model.start_labels(2, frames.device)
    before.replace(row, state.select(row))
    for label in (torch.tensor([2]),):
        new, old = model.append_label(label, before.select(row)), model.append_label(label, state.select(row))
        assert torch.allclose(new.predicted, old.predicted, atol=1e-5)


@torch.inference_mode()
def test_both_searches_take_it(model: Searchable) -> None:
    torch.manual_seed(0)
    encoded, lengths = model.encode(torch.randn(2, 60, MEL_BINS), torch.tensor([60, 41]))
    for search in (greedy, lambda *given: beam(*given, width=2)):
        for hypothesis, frames in zip(search(model, encoded, lengths), lengths.tolist(), strict=True):
            assert len(hypothesis.ids) == len(hypothesis.frames)
            assert all(0 <= frame < frames for frame in hypothesis.frames)
