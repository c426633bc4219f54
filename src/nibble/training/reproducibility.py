"""Makes resumption exact: a training step depends on the seed and the step number only."""

from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch

from nibble.data.batch import Batch


class Reproducible(pl.Callback):
    """Seeds torch before each step from seed, rank and position in the data, and tells the loader that position.

    So no random state has to be saved: a run that was killed and resumed draws the same dropout masks and the
    same batches as an uninterrupted one.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(
        self, trainer: pl.Trainer, _module: pl.LightningModule, batch: Batch, _index: int, *_: Any
    ) -> None:
        """Seed this step; the position saved with it is that of the next batch."""
        epoch, index = batch.position
        state = np.random.SeedSequence([self.seed, trainer.global_rank, epoch, index]).generate_state(1, np.uint64)
        torch.manual_seed(int(state[0] >> 1))
        trainer.datamodule.position = (epoch, index + 1)  # type: ignore[attr-defined]
