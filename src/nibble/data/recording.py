"""Makes clean training speech sound like a recording: silence around it, a quiet background, another level.

Speech from a synthesiser or a cut corpus starts at its first sample and is always about equally loud. A model that
has heard nothing else fails on a user's first recording, which begins with a second of a quiet room.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.signal import lfilter

from nibble.conventions import SAMPLE_RATE_HZ
from nibble.data.noise import mix, power
from nibble.data.options import RecordingConfig
from nibble.data.samples import Samples

_BACKGROUND_SHARE = 0.75  # of the recordings get background noise; the others have digital silence around the speech
_NOTHING_S = 3.0
_NOTHING_DB = (-70.0, -15.0)  # level of noise without speech, relative to full scale
_MAX_POLE = 0.95  # of the filter that colours the background: from white noise to the rumble of a fan


class Setting(NamedTuple):
    """The changes that all utterances of a batch share, so that none needs much padding."""

    joined: int  # neighbours that become one utterance
    longest_silence_s: float


def draw_setting(config: RecordingConfig, random: np.random.Generator) -> Setting | None:
    """Draw how a batch is changed; None leaves it as it is. Short silences are drawn more often than long ones."""
    if random.random() >= config.probability:
        return None
    return Setting(int(random.integers(1, config.max_joined + 1)), config.max_silence_s * random.random() ** 2)


def recorded(
    utterances: Sequence[Samples], setting: Setting, config: RecordingConfig, random: np.random.Generator
) -> Samples:
    """Join utterances, each (samples,), as a microphone may have recorded them one after another: (samples,)."""

    def silence() -> Samples:
        return np.zeros(int(SAMPLE_RATE_HZ * random.uniform(0, setting.longest_silence_s)), dtype=np.float32)

    pieces = [silence()]
    for utterance in utterances:
        pieces += [utterance, silence()]
    samples = np.concatenate(pieces)
    if random.random() < _BACKGROUND_SHARE:
        samples = mix(samples, background(len(samples), random), _between(config.snr_db, random))
    return samples * np.float32(10 ** (_between(config.level_db, random) / 20))


def nothing_said(random: np.random.Generator) -> Samples:
    """A recording in which nobody speaks, (samples,): of up to three seconds, silent or with noise of any level."""
    count = int(SAMPLE_RATE_HZ * random.uniform(0.1, _NOTHING_S))
    if random.random() >= _BACKGROUND_SHARE:
        return np.zeros(count, dtype=np.float32)
    noise = background(count, random)
    return noise * np.float32(10 ** (random.uniform(*_NOTHING_DB) / 20) / np.sqrt(power(noise)))


def background(count: int, random: np.random.Generator) -> Samples:
    """Steady noise (count,), its colour drawn between white and a low rumble."""
    noise = random.standard_normal(count, dtype=np.float32)
    coloured: Samples = lfilter([1.0], [1.0, -random.uniform(0, _MAX_POLE)], noise).astype(np.float32)
    return coloured


def _between(bounds: list[float], random: np.random.Generator) -> float:
    least, most = bounds
    return random.uniform(least, most)
