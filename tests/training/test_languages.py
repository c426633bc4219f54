"""German with umlauts in mixed case, and Chinese: from synthetic speech to an error rate."""

import importlib.util
import json
from pathlib import Path

import pytest
import soundfile

from nibble.conventions import SAMPLE_RATE_HZ
from nibble.data.corpora.cast import Voice
from nibble.data.corpora.embedded import finish, speak
from nibble.training.run import train

needs_espeak = pytest.mark.skipif(
    importlib.util.find_spec("espeakng_loader") is None, reason="pip install -e .[embedded]"
)
SENTENCES = {
    "de": ["Grüß Gott, schöne Äpfel!", "Die Straße ist naß.", "Über uns fährt der Zug.", "Öl und Käse, bitte."],
    "cmn": ["今天天气很好", "我们去公园", "他喜欢喝茶", "今天我们喝茶"],
}


def write_corpus(folder: Path, language: str) -> None:
    """Two parts as manifests, of two voices."""
    for part, variants in (("train", ("m1", "f1")), ("dev", ("m5",))):
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
def test_another_language_trains_and_is_evaluated(language, units, compose_tiny, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (corpus := tmp_path / "corpus").mkdir()
    write_corpus(corpus, language)
    steps = ["trainer.max_steps=6", "trainer.validate_every_steps=6", "records=null", "logger=csv"]
    record = train(compose_tiny(tmp_path / "run", corpus, *steps))
    assert record["units"] == units
    sentences = SENTENCES[language]
    count = sum(len(text.split()) if units == "words" else len(text) for text in sentences)
    assert record["reference_words"] == count
    assert (record["cer"] is None) == (units == "characters")
    assert sum(group["utterances"] for group in record["groups"]["length"]) == len(sentences)
    tokens = (tmp_path / "run/bundle/tokens.txt").read_text(encoding="utf-8")
    assert all(f"{sign} " in tokens for text in sentences for sign in text if not sign.isspace())
