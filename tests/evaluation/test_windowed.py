"""Utterances that are too long, in evaluation: cut into windows, each word found once."""

from collections.abc import Sequence
from functools import partial

import pytest
import torch
from loudness import loud
from touching_words import recognised, speech

from nibble.data.batch import Batch, unlabelled
from nibble.evaluation import windowed
from nibble.evaluation.recognisers import Recogniser
from nibble.evaluation.windowed import Windowed
from nibble.features.extractor import make_features
from nibble.features.options import FeatureConfig
from nibble.inference.seams import Heard
from nibble.inference.windows import windows


class Reader(Recogniser[str]):
    """Hears all words that are whole."""

    def hear(self, batch: Batch) -> list[Heard[str]]:
        assert batch.samples is not None
        found = [recognised(samples.numpy()) for samples in batch.samples]
        return [Heard([word for word, _ in words], [start_s for _, start_s in words]) for words in found]

    def text(self, labels: Sequence[str]) -> str:
        return " ".join(labels)


@pytest.mark.parametrize("batch_s", [0.0, 30.0])
def test_one_long_utterance_among_short_ones(monkeypatch: pytest.MonkeyPatch, batch_s: float) -> None:
    monkeypatch.setattr(windowed, "windows", partial(windows, detect=loud))
    said = [speech(duration_s, seed) for seed, duration_s in enumerate((40.0, 3.0, 60.0))]
    features, samples = make_features(FeatureConfig()), [torch.from_numpy(one.samples) for one in said]
    recognise = Windowed(Reader(), features, longest_s=6.0, batch_s=batch_s)
    texts = recognise(unlabelled([features(one) for one in samples], samples))
    assert texts == [" ".join(one.words) for one in said]
    assert recognise.utterances == 2
    recognise(unlabelled([features(samples[1])], samples[1:2]))
    assert recognise.utterances == 2
