"""What a run keeps: `last.ckpt` to resume from, `best.ckpt` to use, and one checkpoint at the end of each phase."""

from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from nibble.config import ScheduleConfig
from nibble.errors import Interrupted, UserError
from nibble.quant.schedule import state_at


class Checkpoints(pl.Callback):
    """Writes checkpoints; each replaces its predecessor in one rename, so a kill never leaves half a file.

    `best.ckpt` is the lowest dev WER of the last phase at its full precision, the later of equals: a better number of
    an earlier, wider phase is not a result of this run.
    """

    def __init__(self, folder: Path, every_steps: int | None, schedule: ScheduleConfig) -> None:
        self.folder = folder
        self.every_steps = every_steps
        self.schedule = schedule
        self.best_wer = float("inf")

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """`last.ckpt` every so many steps; `phase_<n>_<precision>.ckpt` after the last step of a phase."""
        step, steps = trainer.global_step, trainer.max_steps
        if trainer.fit_loop._should_accumulate():
            return
        for number, phase in enumerate(self.schedule.phases[1:], start=1):
            before = self.schedule.phases[number - 1]
            if step / steps >= phase.at > (step - 1) / steps:
                self._save(trainer, f"phase_{number}_{before.precision.value}")
        if self.every_steps and step % self.every_steps == 0:
            self._save(trainer, "last")

    def on_validation_end(self, trainer: pl.Trainer, _module: pl.LightningModule) -> None:
        """`best.ckpt` if the WER fell, and `last.ckpt` unless it follows the steps."""
        if trainer.sanity_checking:
            return
        wer = float(trainer.callback_metrics.get("val_wer", float("inf")))
        if wer <= self.best_wer and is_final(self.schedule, trainer):
            self.best_wer = wer
            self._save(trainer, "best")
        if self.every_steps is None:
            self._save(trainer, "last")

    def on_train_end(self, trainer: pl.Trainer, _module: pl.LightningModule) -> None:
        """The last weights, wherever training stopped."""
        self._save(trainer, "last")

    def on_exception(self, trainer: pl.Trainer, _module: pl.LightningModule, exception: BaseException) -> None:
        """A run that was asked to stop can go on from here."""
        if isinstance(exception, Interrupted):
            self._save(trainer, "last")

    def _save(self, trainer: pl.Trainer, name: str) -> None:
        target = self.folder / f"{name}.ckpt"
        partial = self.folder / f"{name}.ckpt.partial"
        for logger in trainer.loggers:
            logger.save()  # a run that goes on from here needs its curves until here
        try:
            trainer.save_checkpoint(partial)
            if trainer.is_global_zero:
                partial.replace(target)
            trainer.strategy.barrier()  # a process that goes on may read it
        except (OSError, RuntimeError) as error:  # torch reports a full disk as RuntimeError
            partial.unlink(missing_ok=True)
            raise UserError(
                f"cannot write {target}: {error}. Free space or permit writing there; "
                f"an older {target.name} is as it was, so then: python train.py resume={self.folder.parent}"
            ) from error

    def state_dict(self) -> dict[str, Any]:
        """Plain data, for the checkpoint."""
        return {"best_wer": self.best_wer}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The inverse of `state_dict`."""
        self.best_wer = state_dict["best_wer"]


def is_final(schedule: ScheduleConfig, trainer: pl.Trainer) -> bool:
    """Whether the run is in its last phase and past its ramp."""
    last = schedule.phases[-1]
    fraction = trainer.global_step / trainer.max_steps
    return fraction >= last.at and state_at(schedule, fraction) == (last.precision, 1.0)
