"""Lightning's reading and writing of checkpoints: whole or not at all, finite, every byte checked."""

from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO
from torch import Tensor

from nibble.errors import UserError
from nibble.runs.checkpoint_file import read_checkpoint
from nibble.runs.finite import not_finite
from nibble.writing import whole_file


class CheckpointFiles(TorchCheckpointIO):
    """Lightning's seam for files of checkpoints, here on a disk."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, *_: Any, **__: Any) -> None:
        """Write a checkpoint in place of an older one.

        Raises:
            UserError: weights, statistics or the optimizer's averages are not finite; nothing is written.
            OSError, RuntimeError: the disk is full, or writing is not allowed there.
        """
        path = Path(path)
        if name := not_finite(_state(checkpoint)):
            raise UserError(
                f"{name} is not finite after step {checkpoint['global_step']}, so {path} was not written: training has "
                "diverged. Start again with a lower optimizer.learning_rate or trainer.gradient_clip; "
                f"init_from={path.parent.parent} begins from the last weights that were kept, if there are any"
            )
        with whole_file(path) as written:
            torch.save(checkpoint, written)

    def load_checkpoint(self, path: Any, *_: Any, **__: Any) -> dict[str, Any]:
        """A checkpoint, its tensors in main memory; nothing in the file is executed, whatever Lightning asks for.

        Raises:
            UserError: the file is damaged, or no checkpoint.
        """
        return read_checkpoint(Path(path))


def _state(checkpoint: dict[str, Any]) -> dict[str, Tensor]:
    """All tensors that a resumed run needs, by name."""
    found: dict[str, Tensor] = {}
    for part in ("state_dict", "current_model_state"):  # with averaged weights, the first one is the average
        found |= {name: value for name, value in checkpoint.get(part, {}).items() if isinstance(value, Tensor)}
    for optimizer in checkpoint.get("optimizer_states", []):
        for parameter, state in optimizer["state"].items():
            tensors = {f"{name} of parameter {parameter}": x for name, x in state.items() if isinstance(x, Tensor)}
            found |= {f"the optimizer's {name}": tensor for name, tensor in tensors.items()}
    return found
