"""The stream of batches: what is in it, that it is the same after a resumption, and what is said of bad corpora."""

import logging
import shutil
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from nibble.data.audio import decode, source
from nibble.data.batch import Batch
from nibble.data.datamodule import SpeechDataModule
from nibble.data.feeding import Feeding
from nibble.data.noise import power
from nibble.data.options import Corpus, DataConfig, NoiseConfig, NoiseKind, SpecAugmentConfig, Tokens
from nibble.errors import UserError
from nibble.features.extractor import make_features
from nibble.features.options import FeatureConfig, FeatureStorage
from nibble.hardware import HardwareConfig

HARDWARE = HardwareConfig(workers=0, batch_duration_s=8.0, max_batch_utterances=3, buckets=2)
MASKS = SpecAugmentConfig(time_masks=1, frequency_masks=1, probability=0.5)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "data"


def quarter(frames: int) -> int:
    """Encoded frames, as an encoder counts them."""
    return frames // 4


def make(
    corpus: Path, root: Path, workers: int = 0, seed: int = 1, feeding: Feeding | None = None, **data
) -> SpeechDataModule:
    options = DataConfig(**{"corpus": Corpus.librispeech, "corpus_dir": str(corpus), "spec_augment": MASKS, **data})
    given = feeding or Feeding()
    hardware = replace(HARDWARE, workers=workers)
    return SpeechDataModule(options, FeatureConfig(), hardware, seed, root, replace(given, encoded_frames=quarter))


def disturbed(corpus: Path, root: Path, workers: int = 0, seed: int = 1) -> SpeechDataModule:
    """Everything random at once."""
    noise = NoiseConfig(kind=NoiseKind.babble, dir=str(corpus), probability=0.7)
    return make(corpus, root, workers, seed, speed_perturbation=True, noise=noise)


def equal(first: Batch, second: Batch) -> bool:
    return (
        (first.position, first.ids, first.texts) == (second.position, second.ids, second.texts)
        and torch.equal(first.features, second.features)
        and torch.equal(first.feature_lengths, second.feature_lengths)
        and torch.equal(first.labels, second.labels)
        and torch.equal(first.label_lengths, second.label_lengths)
    )


def test_a_batch(tiny_corpus: Path, root: Path) -> None:
    module = make(tiny_corpus, root, spec_augment=SpecAugmentConfig())
    batch = next(iter(module.train_dataloader()))
    size, frames, bins = batch.features.shape
    assert 1 <= size <= 3
    assert bins == 80
    assert batch.position == (0, 0)
    assert batch.features.dtype == torch.float32
    assert batch.labels.dtype == batch.label_lengths.dtype == batch.feature_lengths.dtype == torch.int64
    assert frames == batch.feature_lengths.max()
    cuts = module.cuts(["train-tiny"])
    assert batch.duration_s == pytest.approx(sum(cuts[name].duration for name in batch.ids))
    for row, name in enumerate(batch.ids):
        length, labels = batch.feature_lengths[row], batch.label_lengths[row]
        expected = make_features(FeatureConfig())(torch.from_numpy(decode(source(cuts[name]))))
        torch.testing.assert_close(batch.features[row, :length], expected)
        assert torch.all(batch.features[row, length:] == 0)
        assert torch.all(batch.labels[row, labels:] == 0)
        assert module.tokenizer.decode(batch.labels[row, :labels].tolist()) == batch.texts[row]
        assert batch.texts[row] == cuts[name].supervisions[0].text
    moved = batch.to("meta")
    assert moved.features.is_meta
    assert moved.ids == batch.ids


def test_an_epoch_holds_every_utterance_once_in_another_order(tiny_corpus: Path, root: Path) -> None:
    module = make(tiny_corpus, root)
    count = module.batches_per_epoch()
    batches = list(islice(module.train_dataloader(), 2 * count))
    assert [batch.position for batch in batches] == [(epoch, i) for epoch in (0, 1) for i in range(count)]
    first, second = ([name for batch in half for name in batch.ids] for half in (batches[:count], batches[count:]))
    assert sorted(first) == sorted(second) == sorted(module.cuts(["train-tiny"]).ids)
    assert first != second
    assert all(max(batch.feature_lengths) * len(batch) <= 800 for batch in batches)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_resumed_stream_goes_on_as_if_nothing_had_happened(tiny_corpus: Path, root: Path, workers: int) -> None:
    whole = disturbed(tiny_corpus, root)
    count = whole.batches_per_epoch()
    expected = list(islice(whole.train_dataloader(), count + 4))
    assert count > 4
    for done in (0, 3, count, count + 2):
        resumed = disturbed(tiny_corpus, root, workers)
        epoch, index = expected[done - 1].position if done else (0, -1)
        saved = disturbed(tiny_corpus, root)
        saved.position = (epoch, index + 1)
        resumed.load_state_dict(saved.state_dict())
        batches = list(islice(resumed.train_dataloader(), 2))
        assert all(equal(*pair) for pair in zip(batches, expected[done : done + 2], strict=True))


def test_two_workers_give_the_same_stream(tiny_corpus: Path, root: Path) -> None:
    alone = islice(disturbed(tiny_corpus, root).train_dataloader(), 5)
    together = islice(disturbed(tiny_corpus, root, workers=2).train_dataloader(), 5)
    assert all(equal(*pair) for pair in zip(alone, together, strict=True))


def test_another_seed_is_another_stream(tiny_corpus: Path, root: Path) -> None:
    first = next(iter(disturbed(tiny_corpus, root, seed=1).train_dataloader()))
    second = next(iter(disturbed(tiny_corpus, root, seed=2).train_dataloader()))
    assert not equal(first, second)


@pytest.mark.parametrize("workers", [0, 1])
def test_torchs_random_state_is_left_alone(tiny_corpus: Path, root: Path, workers: int) -> None:
    module = disturbed(tiny_corpus, root, workers)
    module.prepare_data()
    before = torch.random.get_rng_state()
    list(islice(module.train_dataloader(), 3))
    list(module.val_dataloader())
    assert torch.equal(before, torch.random.get_rng_state())


def test_speeds_are_copies(tiny_corpus: Path, root: Path) -> None:
    module = make(tiny_corpus, root, speed_perturbation=True)
    batches = list(islice(module.train_dataloader(), module.batches_per_epoch()))
    lengths = {
        name: int(length) for batch in batches for name, length in zip(batch.ids, batch.feature_lengths, strict=True)
    }
    assert len(lengths) == 36
    assert lengths["1-1-0000_sp0.9"] == pytest.approx(lengths["1-1-0000"] / 0.9, abs=1)
    assert lengths["1-1-0000_sp1.1"] == pytest.approx(lengths["1-1-0000"] / 1.1, abs=1)


def test_dev_is_whole_in_fixed_order_without_masks(tiny_corpus: Path, root: Path) -> None:
    module = make(tiny_corpus, root)
    batches = list(module.val_dataloader())
    ids = [name for batch in batches for name in batch.ids]
    assert sorted(ids) == ["11-1-0000", "11-1-0001", "12-1-0000", "12-1-0001"]
    again = list(make(tiny_corpus, root, seed=5).dataloader(["dev-tiny"]))
    assert all(equal(*pair) for pair in zip(batches, again, strict=True))
    module = make(tiny_corpus, root, feeding=Feeding(max_validation_utterances=2))
    assert sum(len(batch) for batch in module.val_dataloader()) == 2
    assert sum(len(batch) for batch in module.dataloader(["dev-tiny"], most=3)) == 3


def test_dev_noise_is_the_same_in_every_run_and_at_its_level(tiny_corpus: Path, root: Path) -> None:
    first, second = (
        {name: batch.features[row] for batch in module.val_dataloader() for row, name in enumerate(batch.ids)}
        for module in (disturbed(tiny_corpus, root, seed=1), disturbed(tiny_corpus, root, workers=1, seed=2))
    )
    assert all(torch.equal(first[name], second[name]) for name in first)
    dataset = disturbed(tiny_corpus, root).val_dataloader().dataset
    cut = disturbed(tiny_corpus, root).cuts(["dev-tiny"])[0]
    speech = decode(source(cut))
    noisy = dataset._with_noise(cut, speech, np.random.default_rng(0))
    assert 10 * np.log10(power(speech) / power(noisy - speech)) == pytest.approx(5.0, abs=0.01)


def test_some_utterances_are_as_among_all(tiny_corpus: Path, root: Path) -> None:
    module = disturbed(tiny_corpus, root)
    every = {name: batch.features[row] for batch in module.val_dataloader() for row, name in enumerate(batch.ids)}
    (batch,) = module.dataloader(["dev-tiny"], ids=["12-1-0000"])
    assert batch.ids == ["12-1-0000"]
    assert torch.equal(batch.features[0], every["12-1-0000"][: len(batch.features[0])])


def test_stored_features_equal_those_made_on_the_fly(tiny_corpus: Path, root: Path) -> None:
    options = DataConfig(corpus=Corpus.librispeech, corpus_dir=str(tiny_corpus), spec_augment=MASKS)
    stored = SpeechDataModule(options, FeatureConfig(storage=FeatureStorage.stored), HARDWARE, 1, root)
    fresh = make(tiny_corpus, root)
    for _ in range(2):  # made, then found
        pairs = zip(islice(stored.train_dataloader(), 4), islice(fresh.train_dataloader(), 4), strict=True)
        assert all(equal(*pair) for pair in pairs)
    assert len(list((root / "features").rglob("*.npy"))) == 12
    with pytest.raises(UserError, match=r"features.storage=stored excludes what changes the audio"):
        SpeechDataModule(
            replace(options, speed_perturbation=True),
            FeatureConfig(storage=FeatureStorage.stored),
            HARDWARE,
            1,
            root,
        )


def test_samples_are_kept_when_asked_for_as_the_features_hear_them(tiny_corpus: Path, root: Path) -> None:
    noise = NoiseConfig(kind=NoiseKind.babble, dir=str(tiny_corpus))
    data = make(tiny_corpus, root, noise=noise)
    assert next(iter(data.val_dataloader())).samples is None
    data = make(tiny_corpus, root, noise=noise, feeding=Feeding(keep_samples=True))
    batch = next(iter(data.val_dataloader()))
    assert batch.samples is not None
    assert len(batch.samples) == len(batch)
    for samples, features, length in zip(batch.samples, batch.features, batch.feature_lengths, strict=True):
        assert torch.equal(make_features(FeatureConfig())(samples), features[:length])


def test_parts_and_names(tiny_corpus: Path, root: Path) -> None:
    module = make(tiny_corpus, root)
    assert module.corpus_name == tiny_corpus.name
    assert (module.parts("train"), module.parts("dev"), module.parts("test")) == (
        ["train-tiny"],
        ["dev-tiny"],
        ["test-tiny"],
    )
    assert make(tiny_corpus, root, test_parts=["dev-tiny"]).parts("test") == ["dev-tiny"]


def test_a_tokenizer_can_be_given(tiny_corpus: Path, root: Path) -> None:
    given = make(tiny_corpus, root, tokens=Tokens.bpe, vocabulary_size=40).tokenizer
    module = make(tiny_corpus, root, train_parts=["absent"], feeding=Feeding(given))
    batch = next(iter(module.dataloader(["test-tiny"])))
    assert module.tokenizer.size == 40
    assert given.decode(batch.labels[0].tolist()) == batch.texts[0]


# ---- bad corpora -----------------------------------------------------------------------------------------------------


@pytest.fixture
def spoilt(tiny_corpus: Path, tmp_path: Path) -> Path:
    shutil.copytree(tiny_corpus, tmp_path / "spoilt")
    return tmp_path / "spoilt"


def rewrite(corpus: Path, part: str, name: str, text: str) -> None:
    """Give an utterance another text."""
    (path,) = (corpus / "LibriSpeech" / part).rglob(f"{name[: name.rindex('-')]}.trans.txt")
    lines = [f"{name} {text}" if line.startswith(name) else line for line in path.read_text().splitlines()]
    path.write_text("\n".join(lines))


def test_utterance_shorter_than_its_labels(spoilt: Path, root: Path, caplog: pytest.LogCaptureFixture) -> None:
    rewrite(spoilt, "train-tiny", "1-1-0003", "STOP " * 50)
    module = make(spoilt, root)
    with caplog.at_level(logging.WARNING):
        module.prepare_data()
    (message,) = caplog.messages
    assert message.startswith("1 training utterances shorter than their labels left out: 1-1-0003 (")
    batches = islice(module.train_dataloader(), module.batches_per_epoch())
    assert sum(len(batch) for batch in batches) == 11


def test_the_transducer_alone_needs_one_frame(spoilt: Path, root: Path, caplog: pytest.LogCaptureFixture) -> None:
    rewrite(spoilt, "train-tiny", "1-1-0003", "STOP " * 50)
    options = DataConfig(corpus=Corpus.librispeech, corpus_dir=str(spoilt), spec_augment=MASKS)
    module = SpeechDataModule(options, FeatureConfig(), HARDWARE, 1, root)
    with caplog.at_level(logging.WARNING):
        module.prepare_data()
    assert not caplog.messages
    batches = islice(module.train_dataloader(), module.batches_per_epoch())
    assert sum(len(batch) for batch in batches) == 12


def test_durations_out_of_bounds(tiny_corpus: Path, root: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        make(tiny_corpus, root, max_duration_s=1.5).prepare_data()
    assert "outside data.min_duration_s=0.1 and data.max_duration_s=1.5 left out: " in caplog.text
    with pytest.raises(UserError, match="no training utterance is left; 12 training utterances outside"):
        make(tiny_corpus, root, max_duration_s=0.5).prepare_data()


def test_characters_that_training_lacks_are_said_once(
    spoilt: Path, root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rewrite(spoilt, "dev-tiny", "11-1-0000", "ÇA Y EST")
    module = make(spoilt, root)
    with caplog.at_level(logging.WARNING):
        module.prepare_data()
        module.setup("fit")
        list(module.val_dataloader())
        list(module.dataloader(["dev-tiny"]))
    (message,) = caplog.messages
    assert message.startswith("1 utterances hold characters that training doesn't, so they can't be recognised")
    assert "Ç" in message
    assert "11-1-0000" in message


def test_no_training_part(spoilt: Path, root: Path) -> None:
    shutil.rmtree(spoilt / "LibriSpeech" / "train-tiny")
    expected = r"begins with train; name some with data.train_parts=\[...\]; there is dev-tiny, test-tiny"
    with pytest.raises(UserError, match=expected):
        make(spoilt, root).prepare_data()


def test_cache_that_cannot_be_written(tiny_corpus: Path, root: Path) -> None:
    root.write_text("a file where the folder should be")
    with pytest.raises(UserError, match="can't read the corpus or write its cache"):
        make(tiny_corpus, root).prepare_data()


def test_babble_without_a_folder(tiny_corpus: Path, root: Path) -> None:
    noise = NoiseConfig(kind=NoiseKind.babble, dir=str(root / "absent"))
    with pytest.raises(UserError, match=r"data.noise.dir: no folder .*absent"):
        make(tiny_corpus, root, noise=noise).prepare_data()
