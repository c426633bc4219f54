"""From wherever a model is evaluated, its speech is that of its run."""

from dataclasses import replace
from pathlib import Path

import pytest

from nibble.config import Config
from nibble.data.options import DataOverrides, NoiseKind, NoiseOverrides
from nibble.errors import UserError
from nibble.runs import speech


@pytest.fixture
def trained(tmp_path: Path, tiny_corpus: Path, compose_tiny, monkeypatch: pytest.MonkeyPatch) -> tuple[Config, Path]:
    """(configuration, folder) of a run that was trained in `tmp_path`/there, with relative paths."""
    there = tmp_path / "there"
    (there / "data/digits/LibriSpeech/dev-digits").mkdir(parents=True)
    (there / "speech").symlink_to(tiny_corpus)
    (tmp_path / "here").mkdir()
    config = compose_tiny(there / "run", tiny_corpus)
    config = replace(config, data=replace(config.data, corpus_dir=None, noise=replace(config.data.noise, dir="noise")))
    monkeypatch.chdir(there)
    (there / "run").mkdir()
    speech.remember(there / "run", there / "data/digits/LibriSpeech")
    return config, there / "run"


def test_where_it_was_trained_its_paths_stay_as_they_are(trained: tuple[Config, Path]) -> None:
    config, run = trained
    assert speech.speech(config, run) == (config, Path("data"))


def test_elsewhere_its_paths_begin_where_it_was_trained(
    trained: tuple[Config, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, run = trained
    monkeypatch.chdir(tmp_path / "here")
    found, root = speech.speech(config, run)
    assert root == tmp_path / "there/data"
    assert (found.data.corpus_dir, found.data.noise.dir) == (None, str(tmp_path / "there/noise"))
    relative = replace(config, data=replace(config.data, corpus_dir="speech"))
    assert speech.speech(relative, run)[0].data.corpus_dir == str(tmp_path / "there/speech")


def test_what_a_command_gives_begins_where_the_command_is(
    trained: tuple[Config, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, run = trained
    monkeypatch.chdir(tmp_path / "here")
    noise = NoiseOverrides(kind=NoiseKind.folder, dir="hum")
    found, root = speech.speech(config, run, DataOverrides(corpus_dir="other", noise=noise))
    assert (found.data.corpus_dir, found.data.noise.dir, root) == ("other", "hum", Path("data"))


def test_a_corpus_that_has_moved(trained: tuple[Config, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, run = trained
    (tmp_path / "there/data").rename(tmp_path / "there/moved")
    monkeypatch.chdir(tmp_path / "here")
    expected = r"run was in .*there/data/digits/LibriSpeech and has moved; say where: data\.corpus_dir=DIR"
    with pytest.raises(UserError, match=rf"{expected}, or have it made again here: data\.corpus="):
        speech.speech(config, run)
    own = replace(config, data=replace(config.data, corpus_dir="speech"))
    with pytest.raises(UserError, match=rf"{expected}$"):
        speech.speech(own, run)
    assert speech.speech(config, run, DataOverrides(corpus_dir="other"))[0].data.corpus_dir == "other"


@pytest.mark.parametrize(
    "text", ["", "{", '{"directory": 1, "corpus": ""}', '{"directory": "/", "corpus": "", "x": 1}']
)
def test_a_damaged_file_is_named(text: str, trained: tuple[Config, Path]) -> None:
    config, run = trained
    (run / "speech.json").write_text(text)
    with pytest.raises(UserError, match=r"speech\.json is damaged: .*remove it"):
        speech.speech(config, run)
