"""Log-mel features as ESPnet computes them (its `default` front end).

Hann windows of 512 samples centred on each frame, the speech mirrored at both ends, power spectrum, Slaney's triangular
filters from 0 to 8 kHz with equal areas, logarithm of the value but at least of 1e-10. There is no pre-emphasis.
"""

import torch
from torch import Tensor
from torch.nn.functional import pad

from nibble.conventions import SAMPLE_RATE_HZ
from nibble.features.nemo import mel_filters

_FFT_SAMPLES = 512
_FLOOR = 1e-10
_LEAST_SAMPLES = _FFT_SAMPLES // 2 + 1  # fewer cannot be mirrored over half a window


class EspnetLogMel:
    """`Features` of ESPnet, not normalised. Fewer than 257 samples (16 ms) are filled up with silence.

    Args:
        bins: F.
        shift_samples: from one frame to the next, `hop_length` in ESPnet.
    """

    def __init__(self, bins: int, shift_samples: int) -> None:
        self.bins = bins
        self.shift_s = shift_samples / SAMPLE_RATE_HZ
        self._shift = shift_samples
        self._window = torch.hann_window(_FFT_SAMPLES)
        self._filters = mel_filters(bins)

    @property
    def settings(self) -> str:
        """As `Features` says."""
        return f"espnet log-mel of {self.bins} bins every {self._shift} samples"

    def frame_count(self, samples: int) -> int:
        """T for an utterance of `samples` samples: one frame at its start, and one after each whole shift."""
        return max(samples, _LEAST_SAMPLES) // self._shift + 1

    def __call__(self, samples: Tensor) -> Tensor:
        """As `Features` says."""
        if (missing := _LEAST_SAMPLES - len(samples)) > 0:
            samples = pad(samples, (0, missing))
        spectrum = torch.stft(
            samples,
            _FFT_SAMPLES,
            self._shift,
            window=self._window,
            center=True,
            pad_mode="reflect",
            return_complex=True,
        )
        power = spectrum.real.square() + spectrum.imag.square()  # (257, T)
        return torch.log((power.t() @ self._filters).clamp(min=_FLOOR))
