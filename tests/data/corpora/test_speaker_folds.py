"""No speaker of a fold's test part is in its training, and every speaker is tested once."""

import shutil
from pathlib import Path

import pytest
from conftest import write_part

from nibble.commands import speaker_folds as command
from nibble.data.corpora.speaker_folds import FOLDS, write_folds
from nibble.data.datamodule import SpeechDataModule
from nibble.data.options import Corpus, DataConfig
from nibble.errors import UserError
from nibble.features.options import FeatureConfig
from nibble.hardware import HardwareConfig


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six speakers, each in the parts train-tiny (chapter 1), dev-tiny (2) and test-tiny (3)."""
    folder = tmp_path_factory.mktemp("folds") / "tiny"
    for seed in range(3):
        for chapter, part in enumerate(("train-tiny", "dev-tiny", "test-tiny"), start=1):
            write_part(folder / "LibriSpeech" / part, 4, seed=seed)
            for speaker in (10 * seed + 1, 10 * seed + 2):
                place = folder / "LibriSpeech" / part / str(speaker)
                _renumber(place / "1", speaker, chapter)
    return folder


def _renumber(chapter: Path, speaker: int, number: int) -> None:
    """Utterances of several parts must not have the same ids."""
    target = chapter.with_name(str(100 * number))
    target.mkdir()
    for path in chapter.iterdir():
        new = path.name.replace(f"{speaker}-1", f"{speaker}-{100 * number}")
        if path.suffix == ".txt":
            (target / new).write_text(path.read_text().replace(f"{speaker}-1-", f"{speaker}-{100 * number}-"))
        else:
            shutil.move(path, target / new)
    shutil.rmtree(chapter)


def speakers(fold: Path, root: Path, kind: str) -> dict[str, str]:
    """Id of each utterance -> its speaker, as training reads them."""
    options = DataConfig(corpus=Corpus.digits, corpus_dir=str(fold))
    data = SpeechDataModule(options, FeatureConfig(), HardwareConfig(workers=0), 1, root)
    return {cut.id: cut.supervisions[0].speaker for cut in data.cuts(data.parts(kind))}


def test_no_test_speaker_is_in_training_and_each_is_tested_once(corpus: Path, tmp_path: Path) -> None:
    folds = write_folds(corpus)
    assert [fold.name for fold in folds] == ["tiny-fold1", "tiny-fold2", "tiny-fold3"]
    tested: list[str] = []
    for fold in folds:
        heard = {kind: speakers(fold, tmp_path / "cache", kind) for kind in ("train", "dev", "test")}
        assert set(heard["train"].values()) == set(heard["dev"].values())
        assert len(set(heard["train"].values())) == 4
        assert set(heard["test"].values()).isdisjoint(heard["train"].values())
        assert len(heard["test"]) == 2 * 3 * 2  # speakers, parts, utterances: all that they say
        assert len(heard["train"]) == len(heard["dev"]) == 4 * 2
        tested += sorted(set(heard["test"].values()))
    assert sorted(tested, key=int) == ["1", "2", "11", "12", "21", "22"]


def test_folds_that_are_there_stay(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for fold in write_folds(corpus) for path in fold.rglob("*")}
    assert command.main([str(corpus)]) == 0
    assert capsys.readouterr().out.split() == [str(corpus.with_name(f"tiny-fold{n}")) for n in range(1, FOLDS + 1)]
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_too_few_speakers(tiny_corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match="3 folds of two need 6 or more"):
        write_folds(_few(tiny_corpus))
    assert command.main([]) == 1
    assert "give one corpus" in capsys.readouterr().err


def _few(corpus: Path) -> Path:
    """tiny_corpus has six speakers in all; a part of it has two."""
    folder = corpus.parent / "few"
    shutil.copytree(corpus / "LibriSpeech" / "dev-tiny", folder / "dev-tiny", dirs_exist_ok=True)
    return folder
