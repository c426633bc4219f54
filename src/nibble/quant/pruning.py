"""The Lightning callback that prunes: it draws N:M masks during training, and then fixes them."""

from typing import Any

import pytorch_lightning as pl

from nibble.distributed import whole
from nibble.quant.callback import total_steps
from nibble.quant.convert import prune
from nibble.quant.spec import PruneSchedule


class PruningCallback(pl.Callback):
    """Draws the masks of rules with `sparsity` at the steps of its schedule; they are part of a checkpoint.

    It composes with any precision: weights are pruned, then quantized, and pruned ones keep their gradient
    (straight-through), so until the masks are fixed they may come back.

    Args:
        schedule: when.
        target: dotted name of the part of the LightningModule that was prepared; empty: all of it.
    """

    def __init__(self, schedule: PruneSchedule, target: str = "") -> None:
        self.schedule = schedule
        self.target = target

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        """Draw the masks again, if they are due."""
        if self.is_due(trainer.global_step, total_steps(trainer)):
            with whole(pl_module):
                prune(pl_module.get_submodule(self.target))

    def is_due(self, step: int, steps: float) -> bool:
        """Whether masks are drawn before `step` of `steps`: at the start, at intervals, and when they are fixed."""
        first, fixed = (-int(-at * steps // 1) for at in (self.schedule.at, self.schedule.fixed_at))
        return step in (first, fixed) or (first < step < fixed and (step - first) % self.schedule.every_steps == 0)
