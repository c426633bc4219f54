"""German with umlauts in mixed case, and Chinese: from synthetic speech to the text that sherpa-onnx recognises."""

import importlib.util
import json
from pathlib import Path

import pytest
import soundfile
import torch
from exports import heard

from nibble.conventions import SAMPLE_RATE_HZ
from nibble.data.corpora.cast import Voice
from nibble.data.corpora.embedded import finish, speak
from nibble.data.datamodule import SpeechDataModule
from nibble.data.feeding import Feeding
from nibble.evaluation.sherpa import Sherpa
from nibble.export.options import Encoding
from nibble.hardware import HardwareConfig
from nibble.runs.checkpoint import load_checkpoint
from nibble.training.run import train

needs_espeak = pytest.mark.skipif(
    importlib.util.find_spec("espeakng_loader") is None, reason="pip install -e .[embedded]"
)
SENTENCES = {
    "de": ["Grüß Gott, schöne Äpfel!", "Die Straße ist naß.", "Über uns fährt der Zug.", "Öl und Käse, bitte."],
    "cmn": ["今天天气很好", "我们去公园", "他喜欢喝茶", "今天我们喝茶"],
}
CPU = HardwareConfig(threads=1, workers=0)


def write_corpus(folder: Path, language: str) -> None:
    """Two parts as manifests, of a voice each."""
    for part, variants in (("train", ("m1",)), ("dev", ("m5",))):
        rows = []
        for variant in variants:
            voice = Voice(1, part, language, variant, rate_wpm=150, pitch=50)
            for number, samples in enumerate(speak(voice, SENTENCES[language])):
                name = f"{part}-{variant}-{number}.flac"
                soundfile.write(folder / name, finish(samples, voice.played_hz, -6.0), SAMPLE_RATE_HZ)
                text = SENTENCES[language][number]
                rows.append({"audio_filepath": name, "text": text, "speaker": variant, "lang": language})
        lines = [json.dumps(row, ensure_ascii=False) for row in rows]
        (folder / f"{part}.jsonl").write_text("\n".join(lines), encoding="utf-8")


@needs_espeak
@pytest.mark.parametrize(("language", "units"), [("de", "words"), ("cmn", "characters")])
def test_another_language_trains_is_evaluated_and_exported(
    language, units, compose_tiny, tmp_path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (corpus := tmp_path / "corpus").mkdir()
    write_corpus(corpus, language)
    model = ["loss=rnnt_ctc", "model.width=48", "model.dropout=0", "model.kernel=7", "model.subsampling_channels=8"]
    learning = [*model, "optimizer.learning_rate=0.006", "optimizer.warmup_steps=20"]
    steps = ["trainer.max_steps=300", "trainer.validate_every_steps=300", "records=null", "logger=csv"]
    record = train(compose_tiny(tmp_path / "run", corpus, *learning, *steps))
    assert record["units"] == units
    sentences = SENTENCES[language]
    count = sum(len(text.split()) if units == "words" else len(text) for text in sentences)
    assert record["reference_words"] == count
    assert (record["cer"] is None) == (units == "characters")
    assert sum(group["utterances"] for group in record["groups"]["length"]) == len(sentences)
    tokens = (tmp_path / "run/bundle/tokens.txt").read_text(encoding="utf-8")
    assert all(f"{sign} " in tokens for text in sentences for sign in text if not sign.isspace())
    by_torch, by_sherpa = recognised(tmp_path / "run", tmp_path / "data")
    letters = "".join(by_torch).replace(" ", "")
    assert len(letters) > 12, "it has learnt to write some of it"
    assert set(letters) - set(map(chr, range(128))), "and in its own script"
    assert by_sherpa == by_torch


def recognised(run: Path, cache: Path) -> tuple[list[str], list[str]]:
    """The text of each training utterance: torch's with sherpa-onnx's bound of labels a frame, and sherpa-onnx's."""
    pytest.importorskip("onnx", reason="onnx is not installed: pip install -e '.[export]'")
    pytest.importorskip("sherpa_onnx", reason="sherpa-onnx is not installed: pip install -e '.[export]'")
    from nibble.export.sherpa.folder import export_folder

    loaded = load_checkpoint(run)
    feeding = Feeding(loaded.tokenizer, keep_samples=True)
    data = SpeechDataModule(loaded.config.data, loaded.config.features, CPU, 1, cache, feeding)
    (batch,) = data.dataloader(["train"])
    with torch.no_grad():
        found = heard(loaded, *loaded.model.encode(batch.features, batch.feature_lengths))
    exported, _ = export_folder(run / "sherpa", loaded, Encoding.float)
    return ["".join(tokens).strip() for tokens, _ in found], Sherpa(exported, beam_width=1, threads=1)(batch)
