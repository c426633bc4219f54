"""Ctrl-C and SIGTERM stop training where it can be resumed: after a step, and after the validation that follows it."""

import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytorch_lightning as pl

from nibble import distributed
from nibble.errors import Interrupted
from nibble.stopping import SIGNALS, end_at_the_next
from nibble.training.checkpoints import is_between_steps, validation_follows


class Interruption(pl.Callback):
    """Turns the first signal into an orderly stop; a second one ends the process at once.

    Lightning's own handling saves nothing on Ctrl-C and may stop in the middle of a step.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self._previous: dict[int, Callable[[int, FrameType | None], Any] | int | None] = {}

    def on_train_start(self, _trainer: pl.Trainer, _module: pl.LightningModule) -> None:
        """Take the signals over, after Lightning has installed its handlers."""
        self._previous = {number: signal.signal(number, self._note) for number in SIGNALS}

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, *_: Any) -> None:
        """Stop here if a signal came and all of the step is done."""
        if is_between_steps(trainer) and not validation_follows(trainer):
            self._stop(module)

    def on_validation_end(self, _trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Stop here if a signal came during the step before or in validation."""
        self._stop(module)

    def on_train_end(self, *_: Any) -> None:
        """Give the signals back."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def on_exception(self, *_: Any) -> None:
        """Give the signals back."""
        self.on_train_end()

    def _stop(self, module: pl.LightningModule) -> None:
        """Stop if a signal came to whichever process."""
        if number := distributed.highest(self.signal or 0, module.device):
            raise Interrupted(number)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self.signal = number
        end_at_the_next()
        if distributed.started()[0] == 0:
            print(
                f"\n{signal.Signals(number).name}: training stops after this step, or this validation, and is saved; "
                "once more ends it at once",
                file=sys.stderr,
                flush=True,
            )
