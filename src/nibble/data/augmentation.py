"""SpecAugment: masks over time and frequency (Park et al., 2019), and speed perturbation (Ko et al., 2015)."""

from dataclasses import replace

import numpy as np
import torch
from lhotse import MonoCut
from lhotse.utils import perturb_num_samples
from torch import Tensor
from torchaudio.functional import mask_along_axis

from nibble.conventions import SAMPLE_RATE_HZ
from nibble.data.cuts import Cuts
from nibble.data.options import SpecAugmentConfig
from nibble.features.kaldi import SHIFT_SAMPLES

SPEEDS = (0.9, 1.1)


def spec_augment(features: Tensor, config: SpecAugmentConfig, seed: int) -> Tensor:
    """(T, F) with masks set to the mean of the utterance; the same masks for the same `seed`.

    A time mask is at most `max_time_frames` long and at most `max_time_share` of T, as in section 2 of Park et
    al.; masks may overlap. Torch's global random state is left as it was.
    """
    mean = float(features.mean())
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        for _ in range(config.time_masks):
            features = mask_along_axis(features, config.max_time_frames, mean, axis=0, p=config.max_time_share)
        for _ in range(config.frequency_masks):
            features = mask_along_axis(features, config.max_frequency_bins, mean, axis=1)
    return features


def of_samples(config: SpecAugmentConfig) -> SpecAugmentConfig:
    """The same masks over time for raw samples (T, 1), which have no frequencies to mask."""
    return replace(config, max_time_frames=config.max_time_frames * SHIFT_SAMPLES, frequency_masks=0)


def with_speeds(cuts: Cuts) -> Cuts:
    """`cuts` and their copies at 0.9 and 1.1 times the speed; applied when the audio is loaded."""
    return Cuts.join([cuts, *(_at_speed(cuts, speed) for speed in SPEEDS)])


def _at_speed(cuts: Cuts, speed: float) -> Cuts:
    samples = (cuts.durations_s * SAMPLE_RATE_HZ).round().astype(np.int64).tolist()
    durations_s = np.array([perturb_num_samples(count, speed) / SAMPLE_RATE_HZ for count in samples], dtype=np.float64)

    def change(number: int) -> MonoCut:
        return cuts[number].perturb_speed(speed)

    return Cuts(change, durations_s)
