"""Finds speech in a recording, with the Silero voice activity detector."""

from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from nibble.data.samples import Samples

FRAME_SAMPLES = 512  # of the detector: 32 ms at 16 kHz
_LOUD_SHARE = 0.99  # of samples that are quieter than the level of a recording; clicks are rarer
_LEVEL = 0.2  # which the detector hears
_MAX_GAIN = 300.0  # 50 dB


def speech_probability(samples: Samples) -> NDArray[np.float32]:
    """The probability of speech in each frame of `FRAME_SAMPLES` of `samples` (samples,): (frames,).

    The last frame is filled up with zeros. The detector hears nothing of what was before, and quiet speech as loud:
    it would miss what was recorded 40 dB too low.
    """
    level = float(np.quantile(np.abs(samples), _LOUD_SHARE)) if len(samples) else 0.0
    gain = min(_MAX_GAIN, _LEVEL / level) if level else 1.0
    probability: NDArray[np.float32] = _detector().audio_forward((samples * np.float32(gain)).clip(-1, 1))
    return probability


@cache
def _detector() -> Any:
    """Silero's network, which its package ships. It runs a block of frames at a time on one thread."""
    threads = torch.get_num_threads()
    import silero_vad  # sets torch's number of threads to 1

    torch.set_num_threads(threads)
    return silero_vad.load_silero_vad(sequence=True)
