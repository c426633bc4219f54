"""The options of features: `features=`."""

from dataclasses import dataclass
from enum import StrEnum

from nibble.ranges import Range, check


class FeatureStorage(StrEnum):
    """When log-mel features are computed."""

    on_the_fly = "on_the_fly"  # in the loader, from audio
    stored = "stored"  # once, to disk beside the corpus; excludes waveform augmentation


class Normalization(StrEnum):
    """How features are brought to similar ranges."""

    none = "none"
    corpus = "corpus"  # by mean and variance of each mel bin over the training speech, which the model learns


@dataclass
class FeatureConfig:
    """`features=`: log-mel filterbanks as sherpa-onnx computes them."""

    mel_bins: int = 80  # F, bands between 20 Hz and 7.6 kHz
    normalization: Normalization = Normalization.corpus
    storage: FeatureStorage = FeatureStorage.on_the_fly

    def __post_init__(self) -> None:
        check(self, "features.", mel_bins=Range(7))  # what two strided convolutions need
