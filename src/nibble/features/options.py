"""The options of features: `features=`."""

from dataclasses import dataclass
from enum import StrEnum

from nibble.errors import UserError
from nibble.ranges import Range, check


class FeatureStorage(StrEnum):
    """Where features are computed."""

    on_the_fly = "on_the_fly"  # in the loader, from audio
    stored = "stored"  # once, to disk beside the corpus; excludes waveform augmentation


class FeatureKind(StrEnum):
    """The input of an encoder: log-mel filterbanks of Kaldi, NeMo or ESPnet, or samples."""

    kaldi = "kaldi"  # as sherpa-onnx computes them, and icefall
    nemo = "nemo"  # as NeMo, and transformers for Parakeet
    espnet = "espnet"  # as ESPnet, with a frame every 10 ms (hop_length: 160)
    espnet_8ms = "espnet_8ms"  # the same every 8 ms (hop_length: 128), which ESPnet does unless told otherwise
    samples = "samples"  # raw, for an encoder with convolutions of its own in front: model.foundation


class Normalization(StrEnum):
    """How features are brought to similar ranges."""

    none = "none"
    corpus = "corpus"  # by mean and variance of each mel bin over the training speech, which the model learns
    utterance = "utterance"  # by mean and deviation of each mel bin over the utterance; not for a streaming model


@dataclass
class FeatureConfig:
    """`features=`: log-mel filterbanks, or raw samples."""

    kind: FeatureKind = FeatureKind.kaldi
    mel_bins: int = 80  # F, bands between 20 Hz and 7.6 kHz, for nemo and espnet 0 and 8 kHz; samples: 1
    normalization: Normalization = Normalization.corpus
    storage: FeatureStorage = FeatureStorage.on_the_fly

    def __post_init__(self) -> None:
        if self.kind is not FeatureKind.samples:
            check(self, "features.", mel_bins=Range(7))  # what two strided convolutions need
            return
        if self.mel_bins != 1:
            raise UserError(f"features.mel_bins={self.mel_bins}, but features.kind=samples has no mel bins; give 1")
        if self.normalization is Normalization.corpus:
            raise UserError(
                "features.normalization=corpus is for mel bins; with features.kind=samples give utterance or none"
            )
