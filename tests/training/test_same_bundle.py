"""The format in which speech comes changes nothing that is learnt from it."""

from pathlib import Path

import pytest
from formats import WRITERS, rows_of

from nibble.data.sources.librispeech import LibriSpeech
from nibble.data.sources.part import read_part
from nibble.data.sources.shar import write_shar
from nibble.training.run import train

PARTS = ("train-tiny", "dev-tiny")


@pytest.fixture(scope="module")
def bundle_of(compose_tiny, tmp_path_factory: pytest.TempPathFactory):
    """bundle_of(corpus, *options) -> name -> content of the files of a bundle that hold what was learnt."""

    def make(corpus: Path, *options: str) -> dict[str, bytes]:
        run, patch = tmp_path_factory.mktemp("run"), pytest.MonkeyPatch()
        patch.chdir(run)
        steps = [
            "model.subsampling_channels=8",
            "model.kernel=7",
            "trainer.max_steps=20",
            "trainer.validate_every_steps=20",
            "trainer.max_validation_utterances=2",
            "records=null",
            "logger=csv",
        ]
        train(compose_tiny(run, corpus, "quant=int4", *steps, *options))
        patch.undo()
        names = ("tokenizer.model", "tokens.txt", "model.safetensors")
        return {name: (run / "bundle" / name).read_bytes() for name in names}

    return make


@pytest.fixture(scope="module")
def expected(bundle_of, tiny_corpus: Path) -> dict[str, bytes]:
    return bundle_of(tiny_corpus)


@pytest.mark.parametrize("name", ["Shar", "cuts", "manifest", "Kaldi", "table"])
def test_every_format_trains_to_the_same_bundle(name, bundle_of, expected, tiny_corpus: Path, tmp_path: Path) -> None:
    paths = []
    for part in PARTS:
        layout = LibriSpeech(tiny_corpus / "LibriSpeech" / part)
        (folder := tmp_path / "corpus" / part).mkdir(parents=True)
        if name == "Shar":
            folder.rmdir()
            write_shar(layout, part, folder.parent, tmp_path / "cache")
            paths.append(folder)
        else:
            paths.append(WRITERS[name](folder, rows_of(read_part(layout, tmp_path / "cache"))))
    options = [f"data.train_parts=[{paths[0]}]", f"data.dev_parts=[{paths[1]}]"]
    assert bundle_of(tmp_path / "corpus", *options) == expected
