"""Every command ends, whatever goes wrong and whenever a signal comes, with its exit code and in a few words."""

import shutil

import pytest

LONGEST_S = 45  # from the last words to the end, on a machine with other work; what hangs does so for ever
OPTIONS = ["trainer.max_steps=4", "trainer.validate_every_steps=2", "hardware.workers=1"]

FULL_DISK = """
import torch
def save(_checkpoint, path):
    path.write_bytes(b"half of it")
    raise OSError(28, "No space left on device")
torch.save = save
"""
NO_SHARED_MEMORY = """
import resource
from nibble.data.dataset import SpeechDataset
original = SpeechDataset.__getitem__
def without(self, item):
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
    return original(self, item)
SpeechDataset.__getitem__ = without
"""
LOST_ON_THE_WAY = """
from nibble.data.dataset import SpeechDataset
original = SpeechDataset.__getitem__
def unsendable(self, item):
    batch = original(self, item)
    batch.texts = [lambda: None]
    return batch
SpeechDataset.__getitem__ = unsendable
"""


def signalled(number: int, module: str, name: str, owner: str = "") -> str:
    """A patch: a function of a module, or of a class there, begins with a signal to this process."""
    return f"""
import os, {module} as module
owner = module{f".{owner}" if owner else ""}
original = owner.{name}
def stopped(*arguments, **options):
    os.kill(os.getpid(), {number})
    return original(*arguments, **options)
owner.{name} = stopped
"""


@pytest.fixture(scope="module")
def overrides(tiny_overrides) -> list[str]:
    return [*tiny_overrides, *OPTIONS]


@pytest.mark.parametrize(
    ("patch", "expected"),
    [
        (FULL_DISK, "best.ckpt: [Errno 28] No space left on device. Free space"),
        (NO_SHARED_MEMORY, "error: a loader process has no shared memory for a batch of "),
        (LOST_ON_THE_WAY, "DataLoader worker"),
    ],
    ids=["full disk", "no shared memory", "lost on the way"],
)
def test_an_error_ends_the_process(commands, overrides, request, patch, expected):
    folder = request.node.callspec.id.replace(" ", "_")
    done = commands("train.py", f"hydra.run.dir={folder}", *overrides, patch=patch)
    assert done.code == 1, done.said
    assert expected in done.said
    assert done.after_error_s < LONGEST_S
    assert not list((commands.folder / folder).rglob("*.partial"))


def test_a_corpus_without_a_dev_part_ends_the_process(commands, overrides, tiny_corpus, tmp_path):
    """Training loaders have begun when the dev part turns out to be absent."""
    shutil.copytree(tiny_corpus / "LibriSpeech" / "train-tiny", tmp_path / "LibriSpeech" / "train-tiny")
    done = commands("train.py", "hydra.run.dir=no_dev", *overrides, f"data.corpus_dir={tmp_path}")
    assert done.code == 1, done.said
    assert "begins with dev; name some with data.dev_parts=[...]" in done.said
    assert done.after_error_s < LONGEST_S


@pytest.mark.parametrize(
    ("code", "moment"),
    [
        (130, signalled(2, "nibble.data.datamodule", "prepare_data", "SpeechDataModule")),
        (130, signalled(2, "nibble.training.module", "validation_step", "TransducerModule")),
        (143, signalled(15, "nibble.training.run", "evaluate_run")),
    ],
    ids=["preparing data", "validating", "evaluating"],
)
def test_a_signal_at_any_time_ends_with_the_command_that_goes_on(commands, overrides, request, code, moment):
    folder = f"stopped_{request.node.callspec.id.replace(' ', '_')}"
    done = commands("train.py", f"hydra.run.dir={folder}", *overrides, patch=moment)
    assert done.code == code, done.said
    assert f"To go on: python train.py resume={commands.folder / folder}" in done.said
    assert "Traceback" not in done.said
    assert done.after_error_s < LONGEST_S


def test_a_command_that_does_not_train_says_itself(commands):
    words = ["-m", "nibble.quantize", "checkpoint=none", "quant=int4"]
    done = commands(*words, patch=signalled(15, "nibble.runs.checkpoint", "load_checkpoint"))
    assert done.code == 143, done.said
    assert "To go on: python" in done.said
    assert "Traceback" not in done.said
