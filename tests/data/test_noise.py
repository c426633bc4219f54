"""Noise: the ratio asked for is the ratio achieved, and dev noise is the same in every run."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from nibble.conventions import SAMPLE_RATE_HZ
from nibble.data.audio import Waveforms
from nibble.data.noise import Babble, FolderNoise, fixed_random, mix, power
from nibble.data.sources.librispeech import LibriSpeech
from nibble.data.sources.part import read_part
from nibble.errors import UserError


@settings(max_examples=50, deadline=None)
@given(snr_db=st.floats(-20, 40), speech_level=st.floats(1e-3, 1), noise_level=st.floats(1e-4, 10))
def test_achieved_ratio(snr_db: float, speech_level: float, noise_level: float) -> None:
    random = np.random.default_rng(0)
    speech = (speech_level * random.standard_normal(8000)).astype(np.float32)
    noise = (noise_level * random.standard_normal(8000)).astype(np.float32)
    added = mix(speech, noise, snr_db).astype(np.float64) - speech
    assert 10 * np.log10(power(speech) / np.mean(added**2)) == pytest.approx(snr_db, abs=0.05)


def test_silent_noise_adds_nothing() -> None:
    speech = np.ones(100, dtype=np.float32)
    assert np.array_equal(mix(speech, np.zeros(100, dtype=np.float32), 0.0), speech)


def test_silent_speech_stays_silent() -> None:
    silence = np.zeros(100, dtype=np.float32)
    assert np.array_equal(mix(silence, np.ones(100, dtype=np.float32), 0.0), silence)


@pytest.fixture
def babble(tiny_corpus: Path, tmp_path: Path) -> Babble:
    waveforms = Waveforms(tmp_path)
    cuts = read_part(LibriSpeech(tiny_corpus / "LibriSpeech" / "dev-tiny"), tmp_path)
    waveforms.add(cuts, "dev-tiny")
    return Babble(cuts, waveforms, talkers=4)


@pytest.mark.parametrize("count", [160, 16_000, 100_000])  # 100 000 is longer than any utterance
def test_babble_is_four_equal_voices(babble: Babble, count: int) -> None:
    noise = babble.draw(count, fixed_random("a"))
    assert noise.shape == (count,)
    assert noise.dtype == np.float32
    # Four independent voices of power 1 have power 4, but for chance.
    assert 1 < power(noise) < 12


def test_babble_depends_on_the_generator_alone(babble: Babble) -> None:
    first = babble.draw(8000, fixed_random("11-1-0000"))
    assert np.array_equal(first, babble.draw(8000, fixed_random("11-1-0000")))
    assert not np.array_equal(first, babble.draw(8000, fixed_random("11-1-0001")))


def test_folder_takes_any_audio_and_repeats_short_files(tmp_path: Path) -> None:
    tone = 0.5 * np.sin(2 * np.pi * 100 * np.arange(4000) / 8000)
    (tmp_path / "deep").mkdir()
    soundfile.write(tmp_path / "deep" / "tone.wav", np.stack([tone, tone], axis=1), 8000)
    noise = FolderNoise(tmp_path).draw(20_000, np.random.default_rng(0))
    assert noise.shape == (20_000,)
    # Half a second at 16 kHz, then again from its beginning.
    np.testing.assert_array_equal(noise[:8000], noise[8000:16_000])
    expected = 0.5 * np.sin(2 * np.pi * 100 * np.arange(8000) / SAMPLE_RATE_HZ)
    np.testing.assert_allclose(noise[200:7800], expected[200:7800], atol=5e-3)


def test_folder_draws_different_stretches(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "long.flac", np.linspace(-0.5, 0.5, 50_000), SAMPLE_RATE_HZ)
    noise = FolderNoise(tmp_path)
    starts = {float(noise.draw(1000, np.random.default_rng(seed))[0]) for seed in range(5)}
    assert len(starts) == 5


def test_folder_without_audio(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data.noise.dir: no folder"):
        FolderNoise(tmp_path / "absent")
    with pytest.raises(UserError, match=r"data.noise.dir: no audio"):
        FolderNoise(tmp_path)


def test_broken_noise_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken.wav").write_bytes(b"RIFF")
    with pytest.raises(UserError, match=r"data.noise.dir: .*broken.wav is not audio.*replace or remove it"):
        FolderNoise(tmp_path).draw(100, np.random.default_rng(0))
