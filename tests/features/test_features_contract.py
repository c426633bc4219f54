"""What `Features` promises, for every extractor that the options can ask for."""

from itertools import product

import pytest
import torch

from nibble.conventions import SAMPLE_RATE_HZ
from nibble.features.extractor import Features, make_features
from nibble.features.options import FeatureConfig, FeatureKind, Normalization

MELS = [kind for kind in FeatureKind if kind is not FeatureKind.samples]
RAW = product([FeatureKind.samples], [Normalization.none, Normalization.utterance], [1])
KINDS = [*product(MELS, Normalization, [40]), *RAW]


@pytest.fixture(params=KINDS, ids=lambda kind: f"{kind[0]}-{kind[1]}")
def features(request: pytest.FixtureRequest) -> Features:
    kind, normalization, bins = request.param
    made = make_features(FeatureConfig(kind=kind, mel_bins=bins, normalization=normalization))
    assert made.bins == bins
    return made


def speech(samples: int) -> torch.Tensor:
    return 0.1 * torch.randn(samples, generator=torch.Generator().manual_seed(samples))


@pytest.mark.parametrize("samples", [1, 79, 80, 159, 160, 161, 399, 400, 512, 16_000, 16_079, 16_080])
@pytest.mark.parametrize("level", [0.0, 1.0])
def test_shape_and_values(features: Features, samples: int, level: float) -> None:
    found = features(level * speech(samples))
    assert found.shape == (features.frame_count(samples), features.bins)
    assert found.dtype == torch.float32
    assert len(found) >= 1
    assert found.isfinite().all()
    assert torch.equal(found, features(level * speech(samples)))


def test_a_frame_stands_for_its_time(features: Features) -> None:
    """A click is in the frames around it."""
    quiet, click = 1e-4 * speech(SAMPLE_RATE_HZ), 8_000
    heard = quiet.clone()
    heard[click] = 1.0
    louder = features(heard).mean(1)
    frame = int(louder.argmax())
    assert frame * features.shift_s == pytest.approx(click / SAMPLE_RATE_HZ, abs=2 * features.shift_s)


def test_settings_tell_extractors_apart() -> None:
    corpus, *others = {
        make_features(FeatureConfig(kind=kind, mel_bins=bins, normalization=normalization)).settings
        for kind, bins, normalization in product(MELS, (40, 80), Normalization)
    }
    assert len([corpus, *others]) == len(MELS) * 2 * 2  # what a model does with features changes nothing stored


def test_an_utterance_is_normalised_by_itself() -> None:
    for kind in FeatureKind:
        bins = 80 if kind in MELS else 1
        features = make_features(FeatureConfig(kind=kind, mel_bins=bins, normalization=Normalization.utterance))
        found = features(speech(16_000))
        torch.testing.assert_close(found.mean(0), torch.zeros(bins), atol=1e-5, rtol=0)
        torch.testing.assert_close(found.std(0), torch.ones(bins), atol=1e-3, rtol=0)  # raw: 1e-5 of a deviation of 0.1
