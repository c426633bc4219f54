"""Mixes noise with speech at a given signal-to-noise ratio: audio files, or several talkers at once.

The ratio is 10 log10(S / N), S the mean power of the whole utterance, pauses included, and N the mean power of
the noise laid over it.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import numpy as np

from nibble.conventions import SAMPLE_RATE_HZ
from nibble.data.audio import AUDIO_SUFFIXES, Waveforms, source
from nibble.data.conversion import check
from nibble.data.cuts import Cuts
from nibble.data.files import files
from nibble.data.samples import Samples, at_16_khz, opened, read
from nibble.errors import UserError
from nibble.progress import track


class Noise(Protocol):
    """A source of noise of any length."""

    def draw(self, count: int, random: np.random.Generator) -> Samples:
        """Samples (count,), chosen by `random` alone."""
        ...


class FolderNoise:
    """A random stretch of a random audio file below a folder; short files are repeated.

    Raises:
        UserError: there is no audio, or a file of it can't be used; the text names it.
    """

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise UserError(f"data.noise.dir: no folder {folder}")
        self.paths = sorted(path for path in files(folder) if path.suffix.lower() in AUDIO_SUFFIXES)
        if not self.paths:
            raise UserError(f"data.noise.dir: no audio ({', '.join(AUDIO_SUFFIXES)}) below {folder}")
        for path in track(self.paths, "checking noise", len(self.paths)):
            with self._naming_noise():
                if check(path).samples == 0:
                    raise UserError(f"{path} holds no samples")

    def draw(self, count: int, random: np.random.Generator) -> Samples:
        """Samples (count,) of one file, mixed to one channel and resampled to 16 kHz."""
        path = self.paths[random.integers(len(self.paths))]
        with self._naming_noise(), opened(path) as file:
            wanted = -(-count * file.samplerate // SAMPLE_RATE_HZ)
            file.seek(int(random.integers(max(file.frames - wanted, 0) + 1)))
            return _fill(at_16_khz(read(file, str(path), wanted), file.samplerate), count)

    @contextmanager
    def _naming_noise(self) -> Iterator[None]:
        try:
            yield
        except UserError as error:
            raise UserError(f"data.noise.dir: {error}; replace or remove it") from error


class Babble:
    """Several random utterances of a corpus at once, each from a random point and equally loud."""

    def __init__(self, cuts: Cuts, waveforms: Waveforms, talkers: int) -> None:
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
