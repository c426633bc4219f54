"""Features equal those of ESPnet, written out here from their description; espnet itself is not installed."""

import math

import pytest
import torch

from nibble.features.extractor import make_features
from nibble.features.nemo import mel_filters
from nibble.features.options import FeatureConfig, FeatureKind, Normalization


def by_definition(samples: torch.Tensor, shift: int) -> torch.Tensor:
    """(T, 80) in float64: each frame's 512 mirrored samples, a Hann window, a sum over sines and cosines."""
    samples = samples.double()
    mirrored = torch.cat((samples[1:257].flip(0), samples, samples[-257:-1].flip(0)))
    time = torch.arange(512, dtype=torch.float64)
    window = 0.5 - 0.5 * torch.cos(2 * math.pi * time / 512)
    angles = 2 * math.pi * time[:, None] * torch.arange(257) / 512
    frames = torch.stack([mirrored[at : at + 512] for at in range(0, len(samples) + 1, shift)]) * window
    power = (frames @ angles.cos()) ** 2 + (frames @ angles.sin()) ** 2
    return torch.log((power @ mel_filters(80).double()).clamp(min=1e-10))


@pytest.mark.parametrize(("kind", "shift"), [(FeatureKind.espnet, 160), (FeatureKind.espnet_8ms, 128)])
@pytest.mark.parametrize("samples", [257, 8_000, 8_001, 8_063])
def test_equal_to_the_definition(kind: FeatureKind, shift: int, samples: int) -> None:
    speech = 0.1 * torch.randn(samples, generator=torch.Generator().manual_seed(0))
    features = make_features(FeatureConfig(kind=kind, normalization=Normalization.corpus))
    assert features.shift_s == shift / 16_000
    found, expected = features(speech), by_definition(speech, shift)
    assert len(expected) == samples // shift + 1
    torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=0)


def test_silence_is_the_logarithm_of_the_floor() -> None:
    features = make_features(FeatureConfig(kind=FeatureKind.espnet))
    torch.testing.assert_close(features(torch.zeros(1600)), torch.full((11, 80), math.log(1e-10)))
