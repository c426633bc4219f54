"""Tests before the first step whether the largest batch fits into memory."""

import pytorch_lightning as pl
import torch

from nibble.config import Config
from nibble.data.batch import Batch
from nibble.features.extractor import make_features
from nibble.terminal import Console
from nibble.training.out_of_memory import out_of_memory
from nibble.training.skipping import Statistics


class LargestBatch(pl.Callback):
    """Sends the largest batch forward and backward once, at the precision of the coming step.

    It changes nothing: no step is taken, gradients are dropped, and statistics and random states are restored as they
    were.

    Args:
        config: of the run.

    Raises:
        UserError: there is not enough memory; the text says which option to set to what.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.console = Console(stderr=True)

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Everything that training holds is in memory by now, but for the optimizer's averages at the first start."""
        batch = trainer.datamodule.largest_batch()  # type: ignore[attr-defined]
        longest_s = max(batch.frame_counts) * make_features(self.config.features).shift_s
        what = f"the largest batch, {len(batch)} utterances of up to {longest_s:.1f} s"
        if trainer.is_global_zero:
            self.console.print(what)  # before, since a system that is short of memory may end the process
        try:
            forward_and_backward(trainer, module, batch)
        except RuntimeError as error:
            raise out_of_memory(error, self.config, f"with {what}", longest_s) or error from error


def forward_and_backward(trainer: pl.Trainer, module: pl.LightningModule, batch: Batch) -> None:
    """As in a training step, beside as much memory as the optimizer's averages take."""
    device = trainer.strategy.root_device
    state = trainer.optimizers[0].state
    averages = [torch.empty_like(weight) for weight in module.parameters() for _ in range(0 if state else 2)]
    batch = trainer.strategy.batch_to_device(trainer.precision_plugin.convert_input(batch))
    statistics = Statistics(module)
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            with trainer.precision_plugin.forward_context():
                loss = module.rehearse(batch)  # type: ignore[operator]
            loss.backward()
    finally:
        statistics.restore()
        for weight in module.parameters():
            weight.grad = None
    del averages
