"""Early stopping that waits for the last phase of the precision schedule."""

import pytorch_lightning as pl
from pytorch_lightning.callbacks import EarlyStopping

from nibble.quant.spec import ScheduleConfig
from nibble.training.checkpoints import is_final


class FinalPhaseEarlyStopping(EarlyStopping):
    """Stops after `patience` validations without a lower WER, counted in the last phase only."""

    def __init__(self, patience: int, schedule: ScheduleConfig) -> None:
        super().__init__(monitor="val_wer", patience=patience, mode="min")
        self.schedule = schedule

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """A run that was killed after it had decided to stop, and goes on, stops at once."""
        super().on_train_start(trainer, pl_module)
        trainer.should_stop = trainer.should_stop or self.wait_count >= self.patience

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Lightning's check, once the run is at its final precision."""
        if is_final(self.schedule, trainer):
            super().on_validation_end(trainer, pl_module)
