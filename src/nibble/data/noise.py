"""Noise behind speech at a given signal-to-noise ratio, from a folder or from several talkers at once.

The ratio is 10 log10(S / N), S the mean power of the whole utterance, pauses included, and N the mean power of
the noise laid over it.
"""

import hashlib
import os
from pathlib import Path
from typing import Protocol

import numpy as np
import soundfile
import torch
import torchaudio
from lhotse import CutSet
from numpy.typing import NDArray

from nibble.data.audio import AUDIO_SUFFIXES, Waveforms, source
from nibble.errors import UserError
from nibble.features import SAMPLE_RATE

Samples = NDArray[np.float32]


class Noise(Protocol):
    """Anything that makes noise of a given length."""

    def draw(self, count: int, random: np.random.Generator) -> Samples:
        """Samples (count,), chosen by `random` alone."""
        ...


class FolderNoise:
    """A random stretch of a random audio file below a folder; short files are repeated."""

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise UserError(f"data.noise.dir: no folder {folder}")
        found = [Path(parent, name) for parent, _, names in os.walk(folder, followlinks=True) for name in names]
        self.paths = sorted(path for path in found if path.suffix in AUDIO_SUFFIXES)
        if not self.paths:
            raise UserError(f"data.noise.dir: no audio ({', '.join(AUDIO_SUFFIXES)}) below {folder}")

    def draw(self, count: int, random: np.random.Generator) -> Samples:
        """Samples (count,) of one file, mixed to one channel and resampled to 16 kHz."""
        path = self.paths[random.integers(len(self.paths))]
        try:
            with soundfile.SoundFile(path) as file:
                wanted = -(-count * file.samplerate // SAMPLE_RATE)
                file.seek(int(random.integers(max(file.frames - wanted, 0) + 1)))
                stretch = file.read(wanted, dtype="float32", always_2d=True)
                rate_hz = file.samplerate
        except soundfile.LibsndfileError as error:
            raise UserError(f"can't decode the noise {path}: {error}; replace or remove it") from error
        if not len(stretch):
            raise UserError(f"the noise {path} is empty; remove it")
        mono = torch.from_numpy(stretch.mean(axis=1))
        return _fill(torchaudio.functional.resample(mono, rate_hz, SAMPLE_RATE).numpy(), count)


class Babble:
    """Several random utterances of a corpus at once, each from a random point and equally loud."""

    def __init__(self, cuts: CutSet, waveforms: Waveforms, talkers: int) -> None:
        self.lengths = [(source(cut), cut.recording.num_samples) for cut in cuts]
        self.waveforms = waveforms
        self.talkers = talkers

    def draw(self, count: int, random: np.random.Generator) -> Samples:
        """Samples (count,) of `talkers` voices."""
        babble = np.zeros(count, dtype=np.float32)
        for _ in range(self.talkers):
            path, samples = self.lengths[random.integers(len(self.lengths))]
            start = int(random.integers(max(samples - count, 0) + 1))
            voice = _fill(self.waveforms.read(path, start, count), count)
            babble += voice / max(np.sqrt(power(voice)), 1e-5)
        return babble


def power(samples: Samples) -> float:
    """Mean square."""
    return float(np.dot(samples, samples)) / len(samples)


def mix(speech: Samples, noise: Samples, snr_db: float) -> Samples:
    """`speech` (samples,) plus `noise` (samples,) scaled to the ratio; noise that is all zeros adds nothing."""
    loudness = power(noise)
    if loudness == 0:
        return speech
    return speech + noise * np.float32(np.sqrt(power(speech) / loudness) * 10 ** (-snr_db / 20))


def fixed_random(utterance_id: str) -> np.random.Generator:
    """A generator that depends on the utterance alone, so that dev noise is the same in every run."""
    return np.random.default_rng(int.from_bytes(hashlib.sha256(utterance_id.encode()).digest()[:8], "little"))


def _fill(samples: Samples, count: int) -> Samples:
    """`samples` cut or repeated to `count`."""
    return samples[:count] if len(samples) >= count else np.resize(samples, count)
