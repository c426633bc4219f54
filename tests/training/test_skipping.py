"""A step whose loss is not a number changes nothing but the number of steps."""

from copy import deepcopy

import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from nibble.training import run as training_run
from nibble.training.module import TransducerModule
from nibble.training.run import train
from nibble.training.skipping import Averages, Statistics

BAD_BATCH = 4


class OneNotANumber(TransducerModule):
    """One sample of one batch is not a number: the loss isn't either, nor are the statistics of batch norms."""

    def training_step(self, batch, index):
        if index == BAD_BATCH:
            batch.features[0, 0] = torch.nan
        return super().training_step(batch, index)


class Watch(pl.Callback):
    """Copies of all state before and after the step that has the bad batch."""

    def __init__(self, first: int) -> None:
        self.first = first  # batch of the step
        self.before, self.after = {}, {}

    def state(self, trainer, module):
        averages = next(callback for callback in trainer.callbacks if isinstance(callback, Averages))
        optimizer = {
            f"optimizer.{number}.{name}": tensor
            for number, state in trainer.optimizers[0].state_dict()["state"].items()
            for name, tensor in state.items()
        }
        averaged = {f"average.{name}": tensor for name, tensor in averages._average_model.state_dict().items()}
        return deepcopy(module.state_dict() | averaged | optimizer)

    def on_train_batch_start(self, trainer, module, _batch, index):
        if index == self.first:
            self.before = self.state(trainer, module)

    def on_train_batch_end(self, trainer, module, _outputs, _batch, index):
        if trainer.global_step and not trainer.fit_loop._should_accumulate() and self.before and not self.after:
            self.after = self.state(trainer, module)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_skipped_step_leaves_no_trace(make_config, monkeypatch, accumulate):
    """With accumulation, the good batch of a step that is skipped leaves none either."""
    watch = Watch(BAD_BATCH)
    build = training_run.build_trainer

    def watched(*arguments):
        trainer = build(*arguments)
        trainer.callbacks.append(watch)
        return trainer

    monkeypatch.setattr(training_run, "build_trainer", watched)
    monkeypatch.setattr(training_run, "TransducerModule", OneNotANumber)
    config = make_config(
        f"trainer.max_steps={6 // accumulate}",
        f"trainer.accumulate={accumulate}",
        "trainer.validate_every_steps=99",
        "trainer.ema_decay=0.9",
        "hardware.max_batch_utterances=3",
    )
    record = train(config)
    assert set(watch.before) == set(watch.after) != set()
    for name, tensor in watch.before.items():
        assert torch.equal(tensor, watch.after[name]), f"{name} differs after a skipped step"
    assert record["reference_words"] > 10


def test_everything_that_a_forward_pass_changes_is_put_back():
    norm = nn.BatchNorm1d(3)
    norm.register_buffer("activation_max", torch.zeros(()))
    norm.register_buffer("mask", torch.ones(3, dtype=torch.bool))
    before = deepcopy(norm.state_dict())
    statistics = Statistics(norm)
    norm(torch.full((4, 3), torch.nan))
    norm.activation_max.fill_(torch.nan)
    assert not torch.equal(norm.running_mean, before["running_mean"])
    statistics.restore()
    for name, tensor in before.items():
        assert torch.equal(tensor, norm.state_dict()[name]), name
