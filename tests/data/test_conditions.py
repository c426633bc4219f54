"""Speech changed for evaluation: by as much as the condition says, and the same in every evaluation."""

import numpy as np
import pytest

from nibble.conventions import SAMPLE_RATE_HZ
from nibble.data.conditions import under
from nibble.data.noise import power
from nibble.data.options import Condition

TIME_S = np.arange(SAMPLE_RATE_HZ) / SAMPLE_RATE_HZ
SPEECH = sum(0.1 * np.sin(2 * np.pi * hz * TIME_S) for hz in (100, 1_000, 6_000)).astype(np.float32)


def level_at(samples: np.ndarray, hz: int) -> float:
    """The level of a tone in one second of samples, in dB of the level that it has in `SPEECH`."""
    return float(20 * np.log10(np.abs(np.fft.rfft(samples))[hz] / np.abs(np.fft.rfft(SPEECH))[hz]))


def test_unchanged_speech_is_unchanged() -> None:
    assert under(Condition.unchanged, SPEECH, "a") is SPEECH


@pytest.mark.parametrize(
    ("condition", "silence_s"),
    [(Condition.silence_250ms, 0.25), (Condition.silence_1s, 1), (Condition.silence_2s, 2)],
)
def test_silence_stands_before_and_after(condition: Condition, silence_s: float) -> None:
    silence = np.zeros(int(silence_s * SAMPLE_RATE_HZ), np.float32)
    np.testing.assert_array_equal(under(condition, SPEECH, "a"), np.concatenate((silence, SPEECH, silence)))


@pytest.mark.parametrize(
    ("condition", "decibels"),
    [(Condition.quieter_12db, 12), (Condition.quieter_24db, 24), (Condition.quieter_36db, 36)],
)
def test_quieter_is_quieter_by_so_many_decibels(condition: Condition, decibels: float) -> None:
    assert 10 * np.log10(power(SPEECH) / power(under(condition, SPEECH, "a"))) == pytest.approx(decibels, abs=1e-3)


def test_noise_is_20_db_below_the_speech_and_follows_from_the_utterance() -> None:
    noise = under(Condition.noise_20db, SPEECH, "a") - SPEECH
    assert 10 * np.log10(power(SPEECH) / power(noise)) == pytest.approx(20, abs=1e-3)
    np.testing.assert_array_equal(under(Condition.noise_20db, SPEECH, "a") - SPEECH, noise)
    assert not np.array_equal(under(Condition.noise_20db, SPEECH, "b") - SPEECH, noise)


def test_a_telephone_keeps_its_band_and_nothing_else() -> None:
    heard = under(Condition.telephone, SPEECH, "a")
    assert (heard.dtype, heard.shape) == (SPEECH.dtype, SPEECH.shape)
    assert abs(level_at(heard, 1_000)) < 0.5
    assert level_at(heard, 100) < -30
    assert level_at(heard, 6_000) < -30
    assert under(Condition.telephone, SPEECH[:7], "a").shape == (7,)


def test_silence_alone_lasts_as_long_as_the_speech() -> None:
    np.testing.assert_array_equal(under(Condition.silence_alone, SPEECH, "a"), np.zeros_like(SPEECH))
