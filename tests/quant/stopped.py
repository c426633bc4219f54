"""Training that stops in the middle."""

from pathlib import Path
from typing import Any

import pytorch_lightning as pl


class StopAt(pl.Callback):
    """Saves and stops after a number of steps, as a killed run would have left it."""

    def __init__(self, step: int, file: Path) -> None:
        self.step = step
        self.file = file

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.file)
            trainer.should_stop = True
