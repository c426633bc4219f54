"""Whole transcription: every contender hears the same files, and parts are shares of the whole."""

from pathlib import Path

import pytest
import torch

from nibble.bench import transcribe
from nibble.bench.__main__ import BenchOptions
from nibble.bench.fresh import fresh_model, fresh_tokenizer
from nibble.bench.label_rate import LABELS_A_SECOND, favour_blank
from nibble.conventions import SAMPLE_RATE_HZ
from nibble.errors import UserError
from nibble.inference.transcription import batch_features, recognise
from nibble.memory import Footprint


def test_a_small_model(tiny_corpus: Path, quick_footprint: Footprint, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("onnx", "sherpa_onnx", "onnx_ir"):
        pytest.importorskip(package, reason=f"{package} is not installed: pip install -e '.[export,bench]'")
    monkeypatch.setattr(transcribe, "AT_ONCE", (1, 3))
    monkeypatch.setattr(transcribe, "THREADS", (1,))
    monkeypatch.setattr(transcribe, "footprint", lambda *_: quick_footprint)
    threads = torch.get_num_threads()
    found = transcribe.measure(tiny_corpus / "LibriSpeech" / "dev-tiny", "conformer_xxs", rounds=1)
    assert torch.get_num_threads() == threads
    cases = sorted({one.case for one in found})
    assert [case.partition(" of ")[0] for case in cases] == ["conformer_xxs, 1", "conformer_xxs, 3"]
    for case in cases:
        of = {(one.contender, one.baseline): one for one in found if one.case == case}
        assert list(of) == transcribe.PAIRS
        for name in transcribe.WHOLE:
            assert 0 < of[name, transcribe.AUDIO].ratio < 1
            assert of[name, transcribe.AUDIO].loaded_bytes == quick_footprint.loaded_bytes
        assert all(0 < of[part, transcribe.OURS].ratio < 1.5 for part in transcribe.PARTS)


def test_labels_come_as_often_as_in_speech(tiny_corpus: Path, tmp_path: Path) -> None:
    samples = [transcribe._samples(file) for file in sorted(tiny_corpus.rglob("*.flac"))[:2]]
    duration_s = sum(map(len, samples)) / SAMPLE_RATE_HZ
    loaded = fresh_model("conformer_xxs", "float", fresh_tokenizer(tmp_path), "model.predictor=stateless")
    favour_blank(loaded.model, *batch_features(loaded, samples), duration_s)
    assert 0 < sum(len(one.ids) for one in recognise(loaded, samples)) <= LABELS_A_SECOND * duration_s


def test_a_folder_without_recordings(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no recordings; give a folder of them: corpus=FOLDER"):
        transcribe.measure(tmp_path)
    with pytest.raises(UserError, match="only feeding and transcribe do"):
        BenchOptions(bench=["size"], corpus="speech")
