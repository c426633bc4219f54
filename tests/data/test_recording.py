"""Clean speech that is made to sound recorded: what is drawn stays within its options, and nothing is cut off."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nibble.conventions import SAMPLE_RATE_HZ
from nibble.data.batch import Batch
from nibble.data.datamodule import SpeechDataModule
from nibble.data.noise import power
from nibble.data.options import DataConfig, RecordingConfig
from nibble.data.recording import Setting, background, draw_setting, recorded
from nibble.errors import UserError
from nibble.features.kaldi import frame_count
from nibble.features.options import FeatureConfig, FeatureStorage
from nibble.hardware import HardwareConfig
from nibble.training.module import TransducerModule

SPEECH = np.sin(np.arange(8_000, dtype=np.float32))


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), count=st.integers(1, 3), longest_s=st.sampled_from([0.0, 0.5, 2.0]))
def test_speech_is_whole_between_silences(seed: int, count: int, longest_s: float) -> None:
    random = np.random.default_rng(seed)
    config = RecordingConfig(level_db=[0.0, 0.0], snr_db=[100.0, 100.0])
    found = recorded([SPEECH] * count, Setting(count, longest_s), config, random)
    assert count * len(SPEECH) <= len(found) <= count * len(SPEECH) + (count + 1) * longest_s * SAMPLE_RATE_HZ
    loud = np.abs(found) > 1e-3
    assert np.count_nonzero(loud) == count * np.count_nonzero(np.abs(SPEECH) > 1e-3)
    first = int(loud.argmax())
    np.testing.assert_allclose(found[first : first + 7_000], SPEECH[1:7_001], atol=1e-3)  # it begins with one zero


def test_level_and_background_are_as_asked() -> None:
    for seed in range(20):
        config = RecordingConfig(level_db=[-24.0, -24.0], snr_db=[20.0, 20.0])
        change = recorded([SPEECH], Setting(1, 0.0), config, np.random.default_rng(seed)) * 10 ** (24 / 20) - SPEECH
        snr_db = 10 * np.log10(power(SPEECH) / power(change)) if power(change) > 1e-9 else np.inf
        assert snr_db == pytest.approx(20, abs=0.1) or snr_db == np.inf  # or digital silence behind it


def test_background_has_many_colours() -> None:
    slopes = []
    for seed in range(30):
        noise = background(16_000, np.random.default_rng(seed))
        slopes.append(power(np.diff(noise)) / power(noise))  # 2 for white noise, towards 0 the lower it rumbles
    assert min(slopes) < 0.4
    assert max(slopes) > 1.5


def test_a_share_of_batches_is_changed_each_in_its_own_way() -> None:
    config = RecordingConfig(0.5, max_silence_s=1.0, max_joined=3)
    drawn = [draw_setting(config, np.random.default_rng(seed)) for seed in range(200)]
    changed = [setting for setting in drawn if setting is not None]
    assert 70 < len(changed) < 130
    assert {setting.joined for setting in changed} == {1, 2, 3}
    assert max(setting.longest_silence_s for setting in changed) <= 1.0


def epoch(corpus: Path, root: Path, recording: RecordingConfig, **data: object) -> list[Batch]:
    options = DataConfig(corpus_dir=str(corpus), corpus="embedded", recording=recording, **data)  # type: ignore[arg-type]
    module = SpeechDataModule(options, FeatureConfig(), HardwareConfig(workers=0, batch_duration_s=20.0), 1, root)
    batches = []
    for batch in module.train_dataloader():
        if batch.position[0] > 0:
            return batches
        batches.append(batch)
    raise AssertionError("training has no end")


def test_an_epoch_says_every_word_once_and_the_same_each_time(tiny_corpus: Path, tmp_path: Path) -> None:
    plain = epoch(tiny_corpus, tmp_path, RecordingConfig())
    joined = epoch(tiny_corpus, tmp_path, RecordingConfig(1.0, max_joined=4))
    again = epoch(tiny_corpus, tmp_path, RecordingConfig(1.0, max_joined=4))
    assert sum(map(len, plain)) == 12
    for batch in joined:  # and with each batch comes a recording in which nothing is said
        assert (batch.ids[-1], batch.texts[-1], batch.label_counts[-1]) == ("nothing said", "", 0)
    joined_utterances = [id_ for batch in joined for id_ in batch.ids[:-1]]
    assert len(joined_utterances) < 12
    words = [sorted(" ".join(text for batch in batches for text in batch.texts).split()) for batches in (plain, joined)]
    assert words[0] == words[1]
    assert sorted("+".join(joined_utterances).split("+")) == sorted(id_ for batch in plain for id_ in batch.ids)
    for one, other in zip(joined, again, strict=True):
        assert np.array_equal(one.features, other.features)
        assert one.ids == other.ids


def test_joined_utterances_stay_within_the_longest(tiny_corpus: Path, tmp_path: Path) -> None:
    recording = RecordingConfig(1.0, max_silence_s=0.0, max_joined=12)
    batches = epoch(tiny_corpus, tmp_path, recording, max_duration_s=5.0)
    assert max(max(batch.frame_counts) for batch in batches) <= frame_count(5 * SAMPLE_RATE_HZ)


def test_options_that_contradict(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data.recording.level_db is \[0.0\]; give \[least, most\]"):
        RecordingConfig(level_db=[0.0])
    data = DataConfig(corpus="embedded", recording=RecordingConfig(0.5))  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"data.recording.probability=0"):
        SpeechDataModule(data, FeatureConfig(storage=FeatureStorage.stored), HardwareConfig(), 1, tmp_path)


def test_a_network_learns_from_a_recording_in_which_nothing_is_said(compose_tiny, tiny_corpus: Path, tmp_path) -> None:
    """An utterance without labels has a loss, -log p(blank at every frame), and a gradient."""
    config = compose_tiny(
        tmp_path, tiny_corpus, "data.recording.probability=1", "loss=rnnt_ctc", "data.max_duration_s=30"
    )
    data = SpeechDataModule(config.data, config.features, config.hardware, 1, tmp_path)
    module = TransducerModule(config, data.tokenizer, "tiny")
    module.log_dict = lambda *_, **__: None  # type: ignore[method-assign]  # no trainer listens
    batch = next(iter(data.train_dataloader()))
    assert batch.label_counts[-1] == 0
    loss = module.loss(batch)
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in module.parameters())
