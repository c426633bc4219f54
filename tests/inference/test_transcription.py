"""Long recordings, and sounds that are no speech, through models that know tiny utterances by heart."""

from dataclasses import replace
from functools import partial
from itertools import groupby
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from loudness import loud
from touching_words import recognised, speech

from nibble.conventions import SAMPLE_RATE_HZ
from nibble.features.extractor import make_features
from nibble.features.options import FeatureConfig, FeatureKind
from nibble.inference import transcription
from nibble.inference.streaming import FeatureStream
from nibble.inference.transcription import recognise, transcribe
from nibble.inference.windows import windows
from nibble.model.decoding import MAX_REPEATS, Hypothesis
from nibble.runs.loaded import Loaded


def known(corpus: Path) -> list[tuple[np.ndarray, str]]:
    """The utterances of dev-tiny and their texts."""
    found = []
    for transcript in sorted((corpus / "LibriSpeech" / "dev-tiny").rglob("*.trans.txt")):
        for line in transcript.read_text().splitlines():
            name, text = line.split(" ", 1)
            found.append((soundfile.read(transcript.parent / f"{name}.flac", dtype="float32")[0], text))
    return found


def tone_reader(loaded: Loaded, utterances: list[np.ndarray], _beam_width: int) -> list[Hypothesis]:
    """Stands for a recogniser that never errs: a tone is the word of its pitch, a tone that was cut is another one."""
    frame = SAMPLE_RATE_HZ * 4 // 100
    found = []
    for samples in utterances:
        loudness = np.abs(samples[: len(samples) // 160 * 160].reshape(-1, 160)).max(axis=1) > 0.05
        edges = np.flatnonzero(np.diff(np.concatenate(([False], loudness, [False]))))
        hypothesis = Hypothesis()
        for start, end in zip(edges[::2], edges[1::2], strict=True):
            tone = samples[160 * start : 160 * end]
            pitch_hz = np.abs(np.diff(np.signbit(tone))).sum() * SAMPLE_RATE_HZ / len(tone) / 2
            word = WORDS[round(np.log(pitch_hz / 300) / np.log(1.2)) % len(WORDS)] if len(tone) > 6_000 else "OFF"
            ids = loaded.tokenizer.encode(word)
            hypothesis.ids += ids
            hypothesis.frames += [160 * int(start) // frame] * len(ids)
        found.append(hypothesis)
    return found


WORDS = ["UP", "DOWN", "LEFT", "RIGHT", "GO", "STOP", "YES"]


def test_a_minute_without_a_pause(fitted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No word is lost or said twice, and each is at its time, where no gap is longer than a fifth of a second."""
    random = np.random.default_rng(0)
    spoken, said, starts_s = [], [], []
    while sum(map(len, spoken)) < 60 * SAMPLE_RATE_HZ:
        word = int(random.integers(len(WORDS)))
        gap = np.zeros(int(random.uniform(0.06, 0.2) * SAMPLE_RATE_HZ))
        starts_s.append((sum(map(len, spoken)) + len(gap)) / SAMPLE_RATE_HZ)
        spoken += [gap, 0.3 * np.sin(2 * np.pi * 300 * 1.2**word * np.arange(7_000) / SAMPLE_RATE_HZ)]
        said.append(WORDS[word])
    soundfile.write(tmp_path / "minute.wav", np.concatenate(spoken), SAMPLE_RATE_HZ)
    monkeypatch.setattr(transcription, "windows", partial(windows, detect=loud))
    monkeypatch.setattr(transcription, "recognise", tone_reader)
    heard: list[float] = []
    found = transcribe(fitted("stateless", None), tmp_path / "minute.wav", heard=heard.append)
    assert found.text.split() == said
    assert [word.text for word in found.words] == said
    assert [word.start_s for word in found.words] == pytest.approx(starts_s, abs=0.05)
    assert sum(heard) == pytest.approx(found.duration_s) == pytest.approx(sum(map(len, spoken)) / SAMPLE_RATE_HZ)
    assert len(heard) <= 4  # windows are recognised together


def level_reader(loaded: Loaded, utterances: list[np.ndarray], _beam_width: int) -> list[Hypothesis]:
    """Stands for a recogniser that errs only where a word is cut, and says some words a frame or two late."""
    found, late = [], np.random.default_rng(len(utterances[0]))
    for samples in utterances:
        hypothesis = Hypothesis()
        for word, start_s in recognised(samples):
            ids = loaded.tokenizer.encode(word)
            hypothesis.ids += ids
            hypothesis.frames += [int(start_s / 0.04) + int(late.integers(3))] * len(ids)
        found.append(hypothesis)
    return found


def test_words_that_touch(fitted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows cut words wherever they end, and yet each word is found once, at its time."""
    said = speech(300.0)
    soundfile.write(tmp_path / "touching.wav", said.samples, SAMPLE_RATE_HZ, subtype="FLOAT")
    monkeypatch.setattr(transcription, "windows", partial(windows, detect=loud))
    monkeypatch.setattr(transcription, "recognise", level_reader)
    heard: list[float] = []
    found = transcribe(fitted("stateless", None), tmp_path / "touching.wav", heard=heard.append)
    assert found.text.split() == said.words
    assert [word.text for word in found.words] == said.words
    assert [word.start_s for word in found.words] == pytest.approx(said.starts_s, abs=0.15)
    assert sum(heard) == pytest.approx(len(said.samples) / SAMPLE_RATE_HZ)
    assert min(heard) >= 0


def sounds() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    speech = 0.3 * np.sin(0.2 * np.arange(3 * SAMPLE_RATE_HZ))
    click = np.zeros(SAMPLE_RATE_HZ)
    click[8_000] = 1.0
    made = {
        "silence": np.zeros(10 * SAMPLE_RATE_HZ),
        "noise": 0.1 * random.standard_normal(10 * SAMPLE_RATE_HZ),
        "click": click,
        "50 ms": speech[:800],
        "clipped": np.clip(30 * speech, -1, 1),
        "one sample": speech[:1],
    }
    return {name: samples.astype(np.float32) for name, samples in made.items()}


@pytest.mark.parametrize("bits", [None, 4])
@pytest.mark.parametrize("beam_width", [1, 3])
def test_no_sound_makes_it_loop(fitted, bits: int | None, beam_width: int) -> None:
    loaded: Loaded = fitted("stateless", bits)
    frame_s = loaded.model.encoder.factor * make_features(loaded.config.features).shift_s
    for name, samples in sounds().items():
        (found,) = recognise(loaded, [samples], beam_width)
        assert np.isfinite(found.score), name
        assert len(found.ids) <= 5 * (len(samples) / SAMPLE_RATE_HZ / frame_s + 1), name
        assert max((len(list(run)) for _, run in groupby(found.ids)), default=0) <= MAX_REPEATS, name


def test_windows_that_are_recognised_together_are_as_alone(fitted, tiny_corpus: Path) -> None:
    loaded: Loaded = fitted("stateless", 4)
    utterances = [samples for samples, _ in known(tiny_corpus)]
    together = recognise(loaded, utterances)
    assert [found.ids for found in together] == [recognise(loaded, [one])[0].ids for one in utterances]


@pytest.mark.parametrize("kind", [FeatureKind.kaldi, FeatureKind.nemo])  # raw samples are for whole utterances
@pytest.mark.parametrize("size", [37, 1_600, 7_777])
def test_features_of_pieces_are_those_of_the_whole(kind: FeatureKind, size: int) -> None:
    extractor = make_features(replace(FeatureConfig(), kind=kind))
    samples = torch.randn(20_000, generator=torch.Generator().manual_seed(0)) * 0.1
    stream = FeatureStream(extractor)
    parts = [stream.accept(samples[start : start + size]) for start in range(0, len(samples), size)]
    found, whole = torch.cat([*parts, stream.finish()]), extractor(samples)
    assert found.shape == whole.shape
    torch.testing.assert_close(found, whole, atol=2e-3, rtol=1e-4)
