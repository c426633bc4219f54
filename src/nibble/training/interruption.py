"""Ctrl-C and SIGTERM end a run at the next step boundary, saved, with the command that resumes it."""

import signal
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytorch_lightning as pl

from nibble import processes
from nibble.errors import Interrupted

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interruption(pl.Callback):
    """Turns the first signal into an orderly stop; the second one ends the process as usual.

    Lightning's own handling saves nothing on Ctrl-C and may stop in the middle of a step.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self._previous: dict[int, Callable[[int, FrameType | None], Any] | int | None] = {}

    def on_train_start(self, _trainer: pl.Trainer, _module: pl.LightningModule) -> None:
        """Take the signals over, after Lightning has installed its handlers."""
        self._previous = {number: signal.signal(number, self._note) for number in SIGNALS}

    def on_train_batch_end(self, _trainer: pl.Trainer, module: pl.LightningModule, *_: Any) -> None:
        """Stop here if a signal came during the step, to whichever process."""
        if number := processes.highest(self.signal or 0, module.device):
            raise Interrupted(number)

    def on_train_end(self, *_: Any) -> None:
        """Give the signals back."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def on_exception(self, *_: Any) -> None:
        """Give the signals back."""
        self.on_train_end()

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self.signal = number
        for each in SIGNALS:
            signal.signal(each, signal.SIG_DFL)
