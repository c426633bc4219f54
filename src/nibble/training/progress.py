"""Shows the progress of training in one line: step, loss, dev WER and time left."""

import sys
import time
from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from nibble.quant.callback import QuantizationCallback
from nibble.quant.spec import Precision
from nibble.terminal import Console

LINE_EVERY_S = 30.0  # where there is no terminal, a plain line now and then
TEXT_EVERY_S = 1.0  # beside the bar: to read the loss, the CPU waits for the GPU


class TrainingProgress(pl.Callback):
    """A rich progress bar over optimizer steps; plain lines where standard error isn't a terminal."""

    def __init__(self) -> None:
        self.console = Console(stderr=True)
        self._bar: Progress | None = None
        self._task = TaskID(0)
        self._last_s = time.monotonic()

    def on_train_start(self, trainer: pl.Trainer, _module: pl.LightningModule) -> None:
        """Show the bar, at the step that a resumed run starts from."""
        if not trainer.is_global_zero or not self.console.is_terminal:
            return
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("steps"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self.console,
        )
        self._task = self._bar.add_task("training", total=trainer.max_steps, completed=trainer.global_step)
        self._bar.start()

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Move the bar, or print a line when the last one is old."""
        self._show(trainer, lambda: describe(trainer))

    def on_validation_batch_end(
        self, trainer: pl.Trainer, _module: pl.LightningModule, _outputs: Any, _batch: Any, index: int, *_: Any
    ) -> None:
        """Validation of a large model on a CPU takes minutes: say how far it is."""
        self._show(trainer, lambda: f"validating: batch {index + 1} of {trainer.num_val_batches[0]}")

    def on_validation_end(self, trainer: pl.Trainer, _module: pl.LightningModule) -> None:
        """Print the dev WER on a line of its own."""
        if trainer.is_global_zero and "val_wer" in trainer.callback_metrics:
            wer = float(trainer.callback_metrics["val_wer"])
            self.console.print(f"step {trainer.global_step}: dev WER {wer:.2%}  {describe(trainer)}")

    def _show(self, trainer: pl.Trainer, text: Callable[[], str]) -> None:
        if not trainer.is_global_zero:
            return
        if self._bar is not None:
            self._bar.update(self._task, completed=trainer.global_step)
        if time.monotonic() - self._last_s < (LINE_EVERY_S if self._bar is None else TEXT_EVERY_S):
            return
        self._last_s = time.monotonic()
        if self._bar is not None:
            self._bar.update(self._task, description=text())
        else:
            print(f"step {trainer.global_step}/{trainer.max_steps}  {text()}", file=sys.stderr, flush=True)

    def on_train_end(self, *_: Any) -> None:
        """Leave the finished bar on the screen."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def on_exception(self, *_: Any) -> None:
        """Give the terminal back before the error is printed."""
        self.on_train_end()


def describe(trainer: pl.Trainer) -> str:
    """Loss, learning rate and, in a quantized run, the precision of this step."""
    metrics = trainer.callback_metrics
    parts = [f"loss {float(metrics['train_loss']):.3f}"] if "train_loss" in metrics else ["loss -"]
    parts.append(f"lr {trainer.optimizers[0].param_groups[0]['lr']:.1e}")
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, QuantizationCallback) and callback.quant.rules:
            parts.append(callback.quant.name if callback.precision is Precision.rules else callback.precision.value)
    return "  ".join(parts)
