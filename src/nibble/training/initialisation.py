"""Start from the weights of another run."""

from pathlib import Path

from torch import nn

from nibble.errors import UserError
from nibble.export.checkpoint import load_checkpoint


def load_weights(model: nn.Module, path: Path) -> None:
    """Copy the weights of the checkpoint at `path` into `model`, which must have the same parameters.

    Raises:
        UserError: the checkpoint is of another model; the text names the first difference.
    """
    source = load_checkpoint(path).model.state_dict()
    target = model.state_dict()
    for name, tensor in target.items():
        if name not in source or source[name].shape != tensor.shape:
            found = tuple(source[name].shape) if name in source else "absent"
            raise UserError(
                f"init_from={path}: {name} is {found} there and {tuple(tensor.shape)} here. "
                "Use the same model=, data.tokens and data.vocabulary_size"
            )
    model.load_state_dict(source)
