"""(samples,) -> (T, F) log-mel filterbanks, as kaldi-native-fbank and so sherpa-onnx compute them.

25 ms Povey windows every 10 ms, edges reflected, no dither, mean removed, pre-emphasis 0.97, power spectrum,
80 triangular filters from 20 Hz to 400 Hz below Nyquist, natural logarithm. Samples lie in [-1, 1].
"""

from functools import lru_cache

import torch
from lhotse import Fbank, FbankConfig
from torch import Tensor

from nibble.features.options import FeatureConfig

SAMPLE_RATE = 16_000
FRAME_SHIFT_S = 0.01
WINDOW_SAMPLES = 400
SHIFT_SAMPLES = 160


def fbank(config: FeatureConfig) -> Fbank:
    """Lhotse's extractor with its own defaults, which are the settings above."""
    return Fbank(FbankConfig(num_filters=config.mel_bins))


def frame_count(samples: int) -> int:
    """T for an utterance of `samples` samples: one frame per shift, the last from half a shift on."""
    return (max(samples, WINDOW_SAMPLES) + SHIFT_SAMPLES // 2) // SHIFT_SAMPLES


def log_mel(samples: Tensor, config: FeatureConfig) -> Tensor:
    """Log-mel features (T, F) float32 of one utterance (samples,) at 16 kHz in [-1, 1].

    Fewer samples than a window (25 ms) are filled up with silence. Utterances are taken one by one: on a CPU
    that is a third faster than together, since one utterance's windows fit into the cache, and none sees padding.
    """
    missing = WINDOW_SAMPLES - samples.shape[0]
    if missing > 0:
        samples = torch.nn.functional.pad(samples, (0, missing))
    features: Tensor = _extractor(config.mel_bins).extract(samples, SAMPLE_RATE)
    return features


@lru_cache(maxsize=4)
def _extractor(mel_bins: int) -> Fbank:
    return fbank(FeatureConfig(mel_bins=mel_bins))
