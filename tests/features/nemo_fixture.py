"""Makes nemo_log_mel.npz with the extractor of transformers, which is equal to NeMo's to the last bit.

pip install transformers==5.24.0 librosa==0.11.0; python tests/features/nemo_fixture.py
"""

from pathlib import Path

import numpy as np

from nibble.conventions import SAMPLE_RATE_HZ

FILE = Path(__file__).with_name("nemo_log_mel.npz")


def chirp(samples: int = 12_345) -> np.ndarray:
    """A rising tone in a little noise, (samples,)."""
    time_s = np.arange(samples) / SAMPLE_RATE_HZ
    tone = 0.3 * np.sin(2 * np.pi * (200 * time_s + 800 * time_s**2))
    return (tone + 0.01 * np.random.default_rng(0).standard_normal(samples)).astype(np.float32)


def main() -> None:
    from transformers import ParakeetFeatureExtractor

    found = {}
    for bins in (80, 128):
        out = ParakeetFeatureExtractor(feature_size=bins)(chirp(), sampling_rate=SAMPLE_RATE_HZ, return_tensors="np")
        found[f"bins{bins}"] = out["input_features"][0][out["attention_mask"][0].astype(bool)]
    np.savez_compressed(FILE, **found)


if __name__ == "__main__":
    main()
