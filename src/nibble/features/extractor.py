"""The seam `Features`, and the extractor that the options ask for."""

from functools import lru_cache
from typing import Protocol

import torch
from torch import Tensor

from nibble.features.espnet import EspnetLogMel
from nibble.features.kaldi import KaldiFbank
from nibble.features.nemo import NemoLogMel
from nibble.features.options import FeatureConfig, FeatureKind, Normalization
from nibble.features.raw import RawSamples

_LEAST_DEVIATION = 1e-5  # added to a standard deviation before it divides, as NeMo does


class Features(Protocol):
    """Turns the samples of one utterance into feature frames: (samples,) -> (T, F).

    Legend: T frames, F bins. Samples are float32 at 16 kHz in [-1, 1].

    Every implementation keeps these promises, and `tests/features/test_features_contract.py` checks them for each:

    - T is `frame_count(samples)`. It is at least 1 for any utterance with a sample.
    - Frame t stands for the speech around t * `shift_s` seconds.
    - All values are finite, digital silence included, and the same samples always give the same values.
    """

    bins: int  # F
    shift_s: float  # from one frame to the next

    @property
    def settings(self) -> str:
        """Everything that the values depend on, as text, by which stored features are found again."""
        ...

    def frame_count(self, samples: int) -> int:
        """T for an utterance of `samples` samples."""
        ...

    def __call__(self, samples: Tensor) -> Tensor:
        """samples (samples,) -> features (T, F) float32."""
        ...


class NormalizedByUtterance:
    """`Features` whose bins each have mean 0 and standard deviation 1 over the utterance, as NeMo's `per_feature`."""

    def __init__(self, features: Features) -> None:
        self.bins, self.shift_s = features.bins, features.shift_s
        self._features = features

    @property
    def settings(self) -> str:
        """As `Features` says."""
        return f"{self._features.settings} normalized by utterance"

    def frame_count(self, samples: int) -> int:
        """As `Features` says."""
        return self._features.frame_count(samples)

    def __call__(self, samples: Tensor) -> Tensor:
        """As `Features` says."""
        features = self._features(samples)
        centred = features - features.mean(0)
        if len(features) == 1:
            return centred
        return centred / (torch.std(features, 0) + _LEAST_DEVIATION)


def make_features(config: FeatureConfig) -> Features:
    """The extractor that the options ask for; one for all calls with the same options."""
    return _made(config.kind, config.mel_bins, config.normalization is Normalization.utterance)


@lru_cache(maxsize=8)
def _made(kind: FeatureKind, mel_bins: int, by_utterance: bool) -> Features:
    features: Features
    match kind:
        case FeatureKind.kaldi:
            features = KaldiFbank(mel_bins)
        case FeatureKind.nemo:
            features = NemoLogMel(mel_bins)
        case FeatureKind.espnet:
            features = EspnetLogMel(mel_bins, shift_samples=160)
        case FeatureKind.espnet_8ms:
            features = EspnetLogMel(mel_bins, shift_samples=128)
        case FeatureKind.samples:
            features = RawSamples()
    return NormalizedByUtterance(features) if by_utterance else features
