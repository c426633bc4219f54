"""A corpus in tar files is the same corpus."""

import shutil
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from lhotse import CutSet

from nibble.commands import shar as command
from nibble.data import audio
from nibble.data.audio import Waveforms, decode, source
from nibble.data.datamodule import SpeechDataModule
from nibble.data.options import Corpus, DataConfig, NoiseConfig, NoiseKind
from nibble.data.sources import shar
from nibble.data.sources.part import read_part
from nibble.data.sources.shar import Shar
from nibble.errors import UserError
from nibble.features.options import FeatureConfig, FeatureStorage
from nibble.hardware import HardwareConfig

HARDWARE = HardwareConfig(workers=0, batch_duration_s=8.0, max_batch_utterances=3, buckets=2)


@pytest.fixture(scope="module")
def shards(tiny_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """tiny_corpus in shards of five utterances."""
    target = tmp_path_factory.mktemp("shar") / "tiny"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shar, "SHARD_UTTERANCES", 5)
        patch.chdir(target.parent)
        assert command.main([str(tiny_corpus), str(target)]) == 0
    return target


def module(corpus: Path, root: Path) -> SpeechDataModule:
    noise = NoiseConfig(kind=NoiseKind.babble, dir=str(corpus), probability=0.7)
    options = DataConfig(corpus=Corpus.librispeech, corpus_dir=str(corpus), speed_perturbation=True, noise=noise)
    return SpeechDataModule(options, FeatureConfig(), HARDWARE, 1, root)


@pytest.mark.parametrize("hours", [10.0, 0.0], ids=["decoded once", "decoded each time"])
def test_batches_are_those_of_the_files(tiny_corpus, shards, tmp_path, monkeypatch, hours) -> None:
    monkeypatch.setattr(audio, "MAX_STORED_HOURS", hours)
    files, tars = module(tiny_corpus, tmp_path / "files"), module(shards, tmp_path / "tars")
    assert tars.parts("train") == ["train-tiny"]
    for ours, theirs in zip(islice(tars.train_dataloader(), 8), islice(files.train_dataloader(), 8), strict=True):
        assert (ours.ids, ours.texts) == (theirs.ids, theirs.texts)
        assert torch.equal(ours.features, theirs.features)
    assert [batch.ids for batch in tars.val_dataloader()] == [batch.ids for batch in files.val_dataloader()]


def test_features_are_not_stored_in_a_file_each(shards: Path, tmp_path: Path) -> None:
    options = DataConfig(corpus=Corpus.librispeech, corpus_dir=str(shards))
    stored = SpeechDataModule(options, FeatureConfig(storage=FeatureStorage.stored), HARDWARE, 1, tmp_path)
    with pytest.raises(UserError, match=r"file of each utterance.*give features\.storage=on_the_fly"):
        stored.batches_per_epoch()


def test_lhotse_reads_the_same_samples(shards: Path, tmp_path: Path) -> None:
    assert len(list((shards / "train-tiny").glob("recording.*.tar"))) == 3
    ours = read_part(Shar(shards / "train-tiny"), tmp_path)
    theirs = CutSet.from_shar(in_dir=shards / "train-tiny")
    for mine, cut in zip(ours, theirs, strict=True):
        assert mine.id == cut.id
        assert np.array_equal(decode(source(mine)), cut.load_audio()[0])
        assert np.array_equal(Waveforms(tmp_path).read(source(mine), 100, 50), cut.load_audio()[0, 100:150])


def test_what_is_there_is_not_written_again(tiny_corpus, shards, monkeypatch, tmp_path) -> None:
    before = {path: path.stat().st_mtime_ns for path in shards.rglob("*.tar")}
    monkeypatch.chdir(tmp_path)
    assert command.main([str(tiny_corpus), str(shards)]) == 0
    assert {path: path.stat().st_mtime_ns for path in shards.rglob("*.tar")} == before


def test_shards_that_are_not_whole(shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(shards, broken)
    archive = broken / "dev-tiny/recording.000000.tar"
    archive.write_bytes(archive.read_bytes()[:60_000])
    with pytest.raises(UserError, match=r"recording\.000000\.tar (ends before|cannot be read).*write it again"):
        read_part(Shar(broken / "dev-tiny"), tmp_path)
    archive.unlink()
    with pytest.raises(UserError, match=r"recording\.000000\.tar cannot be read.*write it again"):
        read_part(Shar(broken / "dev-tiny"), tmp_path)
    assert command.main([str(tmp_path / "absent"), str(tmp_path / "target")]) == 1
    assert "no folder" in capsys.readouterr().err


def test_other_shards_are_refused(shards: Path, tmp_path: Path) -> None:
    cuts = CutSet.from_shar(in_dir=shards / "dev-tiny").to_eager()
    for cut in cuts:
        cut.custom = None  # where Lhotse found it
    cuts = cuts.resample(8000)
    (tmp_path / "dev-8k").mkdir()
    cuts.to_shar(tmp_path / "dev-8k", fields={"recording": "flac"})
    with pytest.raises(UserError, match=r"11-1-0000: not 16000 Hz and one channel, as shards must be .8000 Hz"):
        read_part(Shar(tmp_path / "dev-8k"), tmp_path / "cache")
