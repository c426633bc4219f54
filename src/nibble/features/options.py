"""The options of features: `features=`."""

from dataclasses import dataclass
from enum import StrEnum

from nibble.ranges import Range, check


class FeatureStorage(StrEnum):
    """When log-mel features are computed."""

    on_the_fly = "on_the_fly"  # in the loader, from audio
    stored = "stored"  # once, to disk beside the corpus; excludes waveform augmentation


class FeatureKind(StrEnum):
    """Whose log-mel filterbanks."""

    kaldi = "kaldi"  # as sherpa-onnx computes them, and icefall
    nemo = "nemo"  # as NeMo, and transformers for Parakeet


class Normalization(StrEnum):
    """How features are brought to similar ranges."""

    none = "none"
    corpus = "corpus"  # by mean and variance of each mel bin over the training speech, which the model learns
    utterance = "utterance"  # by mean and deviation of each mel bin over the utterance; not for a streaming model


@dataclass
class FeatureConfig:
    """`features=`: log-mel filterbanks."""

    kind: FeatureKind = FeatureKind.kaldi
    mel_bins: int = 80  # F, bands between 20 Hz and 7.6 kHz, or for nemo between 0 and 8 kHz
    normalization: Normalization = Normalization.corpus
    storage: FeatureStorage = FeatureStorage.on_the_fly

    def __post_init__(self) -> None:
        check(self, "features.", mel_bins=Range(7))  # what two strided convolutions need
