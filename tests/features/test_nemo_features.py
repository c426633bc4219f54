"""Features equal those of NeMo."""

import numpy as np
import pytest
import torch
from nemo_fixture import FILE, chirp

from nibble.features.extractor import make_features
from nibble.features.nemo import NemoLogMel, mel_filters
from nibble.features.options import FeatureConfig, FeatureKind, Normalization


@pytest.mark.parametrize("bins", [80, 128])
def test_equal_to_what_nemo_computed(bins: int) -> None:
    config = FeatureConfig(kind=FeatureKind.nemo, mel_bins=bins, normalization=Normalization.utterance)
    with np.load(FILE) as stored:
        expected = stored[f"bins{bins}"]
    found = make_features(config)(torch.from_numpy(chirp())).numpy()
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() < 1e-5


def test_silence_is_the_logarithm_of_the_floor() -> None:
    torch.testing.assert_close(NemoLogMel(80)(torch.zeros(1600)), torch.full((10, 80), -24 * np.log(2)))


def test_filters_are_triangles_of_equal_area() -> None:
    filters = mel_filters(80)
    assert filters.shape == (257, 80)
    areas = filters.sum(0) * 8_000 / 256
    torch.testing.assert_close(areas[40:], torch.ones(40), atol=0.05, rtol=0)  # lower ones have few points
    peaks = filters.argmax(0)
    assert (peaks[1:] >= peaks[:-1]).all()
