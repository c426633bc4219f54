"""Undoes a training step whose loss is not finite: weights, statistics, counters and averages stay as they were."""

from collections import defaultdict
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks.weight_averaging import WeightAveraging
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class Statistics:
    """A copy of everything that a forward pass changes in place: batch-norm statistics, activation maxima, counters.

    Copying and restoring take a few launches on a GPU, and the CPU doesn't wait.

    Args:
        module: its buffers are copied, except masks, which no forward pass changes.
    """

    def __init__(self, module: nn.Module) -> None:
        live: dict[torch.dtype, list[Tensor]] = defaultdict(list)  # one launch copies tensors of one type
        for buffer in module.buffers():
            if buffer.dtype is not torch.bool:
                live[buffer.dtype].append(buffer)
        self._pairs = [(of_type, [torch.empty_like(buffer) for buffer in of_type]) for of_type in live.values()]
        with torch.no_grad():
            for of_type, kept in self._pairs:
                torch._foreach_copy_(kept, of_type)

    @torch.no_grad()
    def restore(self) -> None:
        """Put the module's buffers back to what they were."""
        for of_type, kept in self._pairs:
            torch._foreach_copy_(of_type, kept)


class Averages(WeightAveraging):
    """An exponential moving average of the weights, over the steps that were not skipped.

    It moves all parameters at once; Lightning's EMAWeightAveraging goes from one to the next.
    """

    def __init__(self, decay: float) -> None:
        super().__init__(multi_avg_fn=get_ema_multi_avg_fn(decay))

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *arguments: Any) -> None:
        """Lightning's update; of a module without `step_was_skipped`, after every step."""
        if getattr(pl_module, "step_was_skipped", False):
            self._latest_update_step = trainer.global_step  # nor with the first batch of the next step
        super().on_train_batch_end(trainer, pl_module, *arguments)
