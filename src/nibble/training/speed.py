"""Logs the speed of a run, the time it waits for data, and its memory."""

import time
from typing import Any

import pytorch_lightning as pl
import torch

from nibble.data.batch import Batch
from nibble.memory import peak_bytes


class Speed(pl.Callback):
    """Logs, when Lightning logs and over the steps since it last did:

    learning_rate                of the coming step
    speed/audio_hours_per_hour   hours of audio trained on in an hour, all devices together; validation not counted
    speed/waiting_share          of that time, the share spent without a batch to compute on
    memory/process_bytes         the most that this process has held
    memory/gpu_bytes             the most that tensors have held on this GPU; without one, not logged

    It is the last callback, so that the work of others at the end of a step doesn't count as waiting.
    """

    def __init__(self) -> None:
        self._since_s = self._ended_s = self._waited_s = self._audio_s = 0.0

    def on_train_start(self, *_: Any) -> None:
        """Begin to count."""
        self._restart()

    def on_train_batch_start(self, *_: Any) -> None:
        """The batch is here."""
        self._waited_s += time.perf_counter() - self._ended_s

    def on_train_batch_end(
        self, trainer: pl.Trainer, _module: pl.LightningModule, _outputs: Any, batch: Batch, *_: Any
    ) -> None:
        """Count the batch; after an optimizer step, log if it is time."""
        self._ended_s = time.perf_counter()
        self._audio_s += batch.duration_s
        if trainer.fit_loop._should_accumulate() or trainer.global_step % trainer.log_every_n_steps:  # type: ignore[attr-defined]
            return
        passed_s = self._ended_s - self._since_s
        values = {
            "learning_rate": trainer.optimizers[0].param_groups[0]["lr"],
            "speed/audio_hours_per_hour": trainer.world_size * self._audio_s / passed_s,
            "speed/waiting_share": self._waited_s / passed_s,
            "memory/process_bytes": float(peak_bytes()),
        }
        if trainer.strategy.root_device.type == "cuda":
            values["memory/gpu_bytes"] = float(torch.cuda.max_memory_allocated(trainer.strategy.root_device))
        for logger in trainer.loggers if trainer.is_global_zero else ():
            logger.log_metrics(values, step=trainer.global_step)
        self._restart()

    def on_validation_start(self, *_: Any) -> None:
        """Stop the clock."""
        self._since_s -= time.perf_counter()

    def on_validation_end(self, *_: Any) -> None:
        """Let it go on."""
        self._ended_s = time.perf_counter()
        self._since_s += self._ended_s

    def _restart(self) -> None:
        self._since_s = self._ended_s = time.perf_counter()
        self._waited_s = self._audio_s = 0.0
