"""A training run small enough for a test: a few thousand weights on the tiny corpus."""

from collections.abc import Iterator

import pytest
from commands import Commands
from tiny_options import WITH_CTC

from nibble import composition
from nibble.config import Config
from nibble.errors import Interrupted
from nibble.training.interruption import Interruption
from nibble.training.run import train

TINY = [
    *WITH_CTC,
    "model.heads=2",
    "data.recording.probability=0",  # drawn by batch and process, so that no two ways of training hear the same
    "optimizer.warmup_steps=10",
    "trainer.log_every_steps=1",
]


@pytest.fixture(scope="session")
def tiny_overrides(tiny_corpus) -> list[str]:
    return [*TINY, f"data.corpus_dir={tiny_corpus}"]


@pytest.fixture(scope="session")
def commands(tmp_path_factory) -> Iterator[Commands]:
    """Runs train.py and the other commands, in a folder of its own."""
    folder = tmp_path_factory.mktemp("commands")
    (folder / "data").mkdir()
    started = Commands(folder)
    yield started
    started.close()


@pytest.fixture
def make_config(tiny_overrides, tmp_path, monkeypatch):
    """Composes a tiny run in `tmp_path`, where `data/` and `runs/` then appear."""
    monkeypatch.chdir(tmp_path)

    def make(*overrides: str) -> Config:
        return composition.training_config([*tiny_overrides, "run_dir=runs/tiny", *overrides])

    return make


@pytest.fixture
def train_until(monkeypatch):
    """As `train`, with Ctrl-C after a step: train_until(step, config)."""

    def until(step: int, config: Config) -> None:
        def interrupt(self, trainer, *_):
            if trainer.global_step == step:
                raise Interrupted(2)

        with monkeypatch.context() as patch:
            patch.setattr(Interruption, "on_train_batch_end", interrupt)
            with pytest.raises(Interrupted):
                train(config)

    return until
