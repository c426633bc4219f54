"""Which moments checkpoints are of: never the middle of a step, and never before a validation that is due."""

import os
import signal
from pathlib import Path

import pytest
import torch

from nibble.errors import Interrupted
from nibble.training.module import TransducerModule
from nibble.training.run import train


def checkpoint(folder: str, name: str) -> dict:
    return torch.load(Path(folder) / "checkpoints" / f"{name}.ckpt", weights_only=True)


def test_a_run_from_the_checkpoint_of_a_phase_knows_the_validation_of_its_step(make_config, monkeypatch):
    """The best step is the one that ends the phase: without its validation, a worse one would be kept."""
    end = TransducerModule.on_validation_epoch_end

    def with_set_wer(self):
        end(self)
        self.log("val_wer", 0.5 if self.global_step == 2 else 0.9)

    monkeypatch.setattr(TransducerModule, "on_validation_epoch_end", with_set_wer)
    phases = "schedule.phases=[{at: 0, precision: float}, {at: 0.5, precision: rules}]"
    train(make_config("quant=int4", phases, "trainer.max_steps=4", "trainer.validate_every_steps=2"))
    assert checkpoint("runs/tiny", "best")["global_step"] == 2
    train(make_config("resume=runs/tiny/checkpoints/phase_1_float.ckpt"))
    assert checkpoint("runs/tiny", "last")["global_step"] == 4
    assert checkpoint("runs/tiny", "best")["global_step"] == 2


def test_a_signal_between_the_batches_of_a_step(make_config, monkeypatch):
    options = ["trainer.max_steps=3", "trainer.accumulate=2", "trainer.validate_every_steps=99"]
    options += ["hardware.max_batch_utterances=3"]
    train(make_config(*options, "run_dir=runs/whole"))
    step = TransducerModule.training_step

    def interrupted(self, batch, index):
        if index == 2:  # the first of two batches of the second step
            os.kill(os.getpid(), signal.SIGINT)
        return step(self, batch, index)

    with monkeypatch.context() as patch:
        patch.setattr(TransducerModule, "training_step", interrupted)
        with pytest.raises(Interrupted):
            train(make_config(*options, "run_dir=runs/stopped"))
    assert checkpoint("runs/stopped", "last")["global_step"] == 2
    train(make_config("resume=runs/stopped"))
    whole, other = (checkpoint(folder, "last")["state_dict"] for folder in ("runs/whole", "runs/stopped"))
    assert whole.keys() == other.keys()
    for name, tensor in whole.items():
        assert torch.equal(tensor, other[name]), name
