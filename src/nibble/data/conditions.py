"""Changes speech before it is evaluated: silence around it, another level, noise, a telephone.

What a recogniser loses by each says how it will do on recordings unlike those of its corpus.
"""

from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.signal import butter, resample_poly, sosfilt
from torchaudio.functional import mu_law_decoding, mu_law_encoding

from nibble.conventions import SAMPLE_RATE_HZ
from nibble.data.noise import fixed_random, mix
from nibble.data.options import Condition
from nibble.data.samples import Samples, at_16_khz

_SILENCE_S = {Condition.silence_250ms: 0.25, Condition.silence_1s: 1.0, Condition.silence_2s: 2.0}
_GAIN_DB = {Condition.quieter_12db: -12.0, Condition.quieter_24db: -24.0, Condition.quieter_36db: -36.0}
_NOISE_SNR_DB = 20.0
_TELEPHONE_HZ = 8_000
_TELEPHONE_BAND_HZ = (300, 3_400)
_MU_LAW_LEVELS = 256


def under(condition: Condition, speech: Samples, utterance_id: str) -> Samples:
    """`speech` (samples,) at 16 kHz as it sounds under a condition: (samples',).

    Noise follows from the utterance's id alone, so it is the same for every model.
    """
    if condition in _SILENCE_S:
        return np.pad(speech, int(_SILENCE_S[condition] * SAMPLE_RATE_HZ))
    if condition in _GAIN_DB:
        return speech * np.float32(10 ** (_GAIN_DB[condition] / 20))
    if condition is Condition.noise_20db:
        noise = fixed_random(utterance_id).standard_normal(len(speech), dtype=np.float32)
        return mix(speech, noise, _NOISE_SNR_DB)
    if condition is Condition.telephone:
        return _telephone(speech)
    if condition is Condition.silence_alone:
        return np.zeros_like(speech)
    return speech


def _telephone(speech: Samples) -> Samples:
    """As over a land line: 300 to 3400 Hz, 8 kHz, 8 bits on the mu-law scale of ITU-T G.711."""
    narrow = resample_poly(sosfilt(_band(), speech), 1, SAMPLE_RATE_HZ // _TELEPHONE_HZ).astype(np.float32)
    stored = mu_law_encoding(torch.from_numpy(narrow.clip(-1, 1)), _MU_LAW_LEVELS)
    sent = mu_law_decoding(stored, _MU_LAW_LEVELS).numpy()
    return at_16_khz(sent, _TELEPHONE_HZ)[: len(speech)]


@cache
def _band() -> NDArray[np.float64]:
    return butter(4, _TELEPHONE_BAND_HZ, "bandpass", fs=SAMPLE_RATE_HZ, output="sos")
