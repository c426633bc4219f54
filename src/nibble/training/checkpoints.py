"""Writes checkpoints: `last.ckpt` to resume from, `best.ckpt` to use, and one at the end of each phase."""

from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from nibble.errors import Interrupted, UserError
from nibble.quant.schedule import state_at
from nibble.quant.spec import ScheduleConfig
from nibble.runs.run_folder import RunFolder


class Checkpoints(pl.Callback):
    """Decides when checkpoints are written; `CheckpointFiles` writes them.

    `best.ckpt` has the lowest dev WER of the last phase at its full precision (of equals, the later one): a better WER
    of an earlier phase with more bits is not a result of this run.

    If a step is followed by a validation, `last.ckpt` and a phase's checkpoint are written after the validation, as
    `best.ckpt` is. So a run that is killed during a validation repeats it, and ends with the same model as
    without the kill, whichever checkpoint it resumes from.

    It must come after all callbacks that change their state at the end of a validation.
    """

    def __init__(self, run: RunFolder, every_steps: int | None, schedule: ScheduleConfig) -> None:
        self.run = run
        self.every_steps = every_steps
        self.schedule = schedule
        self.best_wer = float("inf")

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Write `phase_<n>_<precision>.ckpt` after the last step of a phase, and `last.ckpt` at regular intervals."""
        if not is_between_steps(trainer) or validation_follows(trainer):
            return
        self._save_phases(trainer)
        if self._is_due(trainer.global_step):
            self._save(trainer, self.run.last_checkpoint)

    def on_validation_end(self, trainer: pl.Trainer, _module: pl.LightningModule) -> None:
        """Write `best.ckpt` if the WER fell, a phase's checkpoint, and `last.ckpt` unless it is due at other steps."""
        if trainer.sanity_checking:
            return
        wer = float(trainer.callback_metrics.get("val_wer", float("inf")))
        if wer <= self.best_wer and is_final(self.schedule, trainer):
            self.best_wer = wer
            self._save(trainer, self.run.best_checkpoint)
        self._save_phases(trainer)
        if self.every_steps is None or self._is_due(trainer.global_step):
            self._save(trainer, self.run.last_checkpoint)

    def on_train_end(self, trainer: pl.Trainer, _module: pl.LightningModule) -> None:
        """Write the last weights, wherever training stopped."""
        self._save(trainer, self.run.last_checkpoint)

    def on_exception(self, trainer: pl.Trainer, _module: pl.LightningModule, exception: BaseException) -> None:
        """Write a checkpoint if `Interruption` stopped the run, so that it can be resumed."""
        if isinstance(exception, Interrupted) and not exception.abrupt:
            self._save(trainer, self.run.last_checkpoint)

    def _is_due(self, step: int) -> bool:
        return self.every_steps is not None and step % self.every_steps == 0

    def _save_phases(self, trainer: pl.Trainer) -> None:
        """The checkpoint of a phase whose last step this was."""
        step, steps = trainer.global_step, trainer.max_steps
        for number, phase in enumerate(self.schedule.phases[1:], start=1):
            before = self.schedule.phases[number - 1]
            if step / steps >= phase.at > (step - 1) / steps:
                self._save(trainer, self.run.phase_checkpoint(number, before.precision.value))

    def _save(self, trainer: pl.Trainer, target: Path) -> None:
        for logger in trainer.loggers:
            logger.save()  # a run that goes on from here needs its curves until here
        try:
            trainer.save_checkpoint(target)  # returns when all processes may read it
        except (OSError, RuntimeError) as error:  # torch reports a full disk as RuntimeError
            raise UserError(
                f"cannot write {target}: {error}. Free space or permit writing there; "
                f"an older {target.name} is as it was, so then: python train.py resume={self.run.path}"
            ) from error

    def state_dict(self) -> dict[str, Any]:
        """Plain data, for the checkpoint."""
        return {"best_wer": self.best_wer}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The inverse of `state_dict`."""
        self.best_wer = state_dict["best_wer"]


def is_between_steps(trainer: pl.Trainer) -> bool:
    """At the end of a batch, whether it was the last one of an optimizer step."""
    return not trainer.fit_loop._should_accumulate()


def validation_follows(trainer: pl.Trainer) -> bool:
    """At the end of a batch, whether Lightning validates before the next one."""
    batches = trainer.fit_loop.total_batch_idx + 1
    return bool(trainer.limit_val_batches) and batches % (trainer.val_check_batch or 1) == 0


def is_final(schedule: ScheduleConfig, trainer: pl.Trainer) -> bool:
    """Whether the run is in its last phase and past its ramp."""
    last = schedule.phases[-1]
    fraction = trainer.global_step / trainer.max_steps
    return fraction >= last.at and state_at(schedule, fraction) == (last.precision, 1.0)
