"""Log-mel features as NeMo computes them (`AudioToMelSpectrogramPreprocessor`), and transformers for Parakeet.

Pre-emphasis 0.97 over the whole utterance, 25 ms Hann windows every 10 ms centred in 512 samples with zeros beyond both
ends, power spectrum, Slaney's triangular filters from 0 to 8 kHz with equal areas, logarithm of the value plus 2^-24.
NeMo adds noise of 1e-5 in training; here there is none.
"""

import math

import torch
from torch import Tensor

from nibble.conventions import SAMPLE_RATE_HZ
from nibble.features.kaldi import FRAME_SHIFT_S, SHIFT_SAMPLES, WINDOW_SAMPLES

_FFT_SAMPLES = 512
_PREEMPHASIS = 0.97
_FLOOR = 2.0**-24
# Slaney's mel scale is linear up to 1 kHz, which is 15 mels, and logarithmic above.
_LINEAR_HZ, _LINEAR_MELS = 1000.0, 15.0
_LOG_STEP = math.log(6.4) / 27


class NemoLogMel:
    """`Features` of NeMo, not normalised."""

    def __init__(self, bins: int) -> None:
        self.bins = bins
        self.shift_s = FRAME_SHIFT_S
        self._window = torch.hann_window(WINDOW_SAMPLES, periodic=False)
        self._filters = mel_filters(bins)

    @property
    def settings(self) -> str:
        """As `Features` says."""
        return f"nemo log-mel of {self.bins} bins"

    def frame_count(self, samples: int) -> int:
        """T for an utterance of `samples` samples: one frame for each whole shift, and at least one."""
        return max(1, samples // SHIFT_SAMPLES)

    def __call__(self, samples: Tensor) -> Tensor:
        """As `Features` says."""
        emphasised = torch.cat((samples[:1], samples[1:] - _PREEMPHASIS * samples[:-1]))
        spectrum = torch.stft(
            emphasised,
            _FFT_SAMPLES,
            SHIFT_SAMPLES,
            WINDOW_SAMPLES,
            self._window,
            center=True,
            pad_mode="constant",
            return_complex=True,
        )
        power = spectrum.real.square() + spectrum.imag.square()  # (257, T + 1)
        frames = power[:, : self.frame_count(len(samples))].t()
        return torch.log(frames @ self._filters + _FLOOR)


def mel_filters(bins: int) -> Tensor:
    """Slaney's triangular filters (257, F) from 0 Hz to Nyquist, each with area 1 over frequency in Hz.

    In float64 until the end: torchaudio's, in float32, move normalised features by 5e-5.
    """
    nyquist_hz = SAMPLE_RATE_HZ / 2
    top = _LINEAR_MELS + math.log(nyquist_hz / _LINEAR_HZ) / _LOG_STEP
    mels = torch.linspace(0, top, bins + 2, dtype=torch.float64)
    edges_hz = torch.where(
        mels < _LINEAR_MELS,
        mels * _LINEAR_HZ / _LINEAR_MELS,
        _LINEAR_HZ * torch.exp(_LOG_STEP * (mels - _LINEAR_MELS)),
    )
    spectrum_hz = torch.linspace(0, nyquist_hz, _FFT_SAMPLES // 2 + 1, dtype=torch.float64).unsqueeze(1)
    low, middle, high = edges_hz[:-2], edges_hz[1:-1], edges_hz[2:]
    rising, falling = (spectrum_hz - low) / (middle - low), (high - spectrum_hz) / (high - middle)
    triangles = torch.minimum(rising, falling).clamp(min=0)
    return (triangles * 2 / (high - low)).float()
