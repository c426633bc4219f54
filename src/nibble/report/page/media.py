"""Speech for an HTML page: sound and spectrogram as data URIs."""

import base64
import io

import numpy as np
import soundfile
from matplotlib.image import imsave
from torch import Tensor

from nibble.conventions import SAMPLE_RATE_HZ

_MAX_COLUMNS = 1000  # in a spectrogram; longer speech is averaged over frames


def sound(samples: Tensor) -> str:
    """(samples,) at 16 kHz in [-1, 1] as MP3 of about 40 kbit/s: what every browser plays."""
    file = io.BytesIO()
    soundfile.write(file, samples.clamp(-1, 1).numpy(), SAMPLE_RATE_HZ, format="MP3", subtype="MPEG_LAYER_III")
    return _uri("audio/mpeg", file)


def spectrogram(features: Tensor) -> str:
    """Log-mel (T, F) as a picture, time to the right and frequency up, in the colours of magma."""
    frames = np.array_split(features.numpy(), min(len(features), _MAX_COLUMNS))
    picture = np.stack([part.mean(axis=0) for part in frames]).T
    darkest, brightest = np.percentile(picture, [5, 99.5])
    file = io.BytesIO()
    options = {"quality": 60}
    imsave(file, picture, darkest, brightest, "magma", "webp", origin="lower", pil_kwargs=options)
    return _uri("image/webp", file)


def _uri(kind: str, file: io.BytesIO) -> str:
    return f"data:{kind};base64,{base64.b64encode(file.getvalue()).decode()}"
