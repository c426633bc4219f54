"""Features equal those that sherpa-onnx computes, for any length."""

import kaldi_native_fbank
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lhotse import FbankConfig

from nibble.conventions import SAMPLE_RATE_HZ
from nibble.features.kaldi import KaldiFbank, frame_count


def kaldi(samples: np.ndarray, mel_bins: int) -> np.ndarray:
    options = kaldi_native_fbank.FbankOptions()
    options.frame_opts.dither = 0
    options.frame_opts.snip_edges = False
    options.frame_opts.samp_freq = SAMPLE_RATE_HZ
    options.mel_opts.num_bins = mel_bins
    options.mel_opts.low_freq = 20
    options.mel_opts.high_freq = -400
    extractor = kaldi_native_fbank.OnlineFbank(options)
    extractor.accept_waveform(SAMPLE_RATE_HZ, samples.tolist())
    extractor.input_finished()
    return np.stack([extractor.get_frame(i) for i in range(extractor.num_frames_ready)])


def noisy_tone(samples: int, level: float) -> np.ndarray:
    time_s = np.arange(samples) / SAMPLE_RATE_HZ
    noise = np.random.default_rng(samples).standard_normal(samples)
    return (level * (np.sin(2 * np.pi * 440 * time_s) + 0.1 * noise)).astype(np.float32)


@settings(max_examples=30, deadline=None)
@given(samples=st.integers(400, 20_000), level=st.sampled_from([0.5, 0.01, 1e-4]), mel_bins=st.sampled_from([40, 80]))
def test_equal_to_kaldi_native_fbank(samples: int, level: float, mel_bins: int) -> None:
    audio = noisy_tone(samples, level)
    ours = KaldiFbank(mel_bins)(torch.from_numpy(audio))
    theirs = kaldi(audio, mel_bins)
    assert ours.shape == theirs.shape == (frame_count(samples), mel_bins)
    assert np.abs(ours.numpy() - theirs).max() < 1e-3


def test_silence_has_kaldis_floor() -> None:
    silence = np.zeros(SAMPLE_RATE_HZ, dtype=np.float32)
    ours = KaldiFbank(80)(torch.from_numpy(silence))
    assert np.abs(ours.numpy() - kaldi(silence, 80)).max() < 1e-3


def test_one_second_has_a_hundred_frames() -> None:
    assert KaldiFbank(80)(torch.zeros(SAMPLE_RATE_HZ)).shape == (100, 80)


@pytest.mark.parametrize("samples", [1, 79, 160, 399])
def test_less_than_a_window_is_filled_with_silence(samples: int) -> None:
    audio = torch.from_numpy(noisy_tone(samples, 0.5))
    short = KaldiFbank(80)(audio)
    filled = KaldiFbank(80)(torch.nn.functional.pad(audio, (0, 400 - samples)))
    assert short.shape == (frame_count(samples), 80)
    assert torch.equal(short, filled)


def test_settings_are_lhotses_with_its_defaults() -> None:
    """They name stored features: a change would compute all of them again."""
    assert KaldiFbank(40).settings == str(FbankConfig(num_filters=40).to_dict())
