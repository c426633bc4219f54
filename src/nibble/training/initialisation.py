"""Start from the weights of another run."""

from pathlib import Path

from torch import nn

from nibble.errors import UserError
from nibble.quant.low_rank import factorize
from nibble.quant.spec import LowRank
from nibble.runs.checkpoint import load_checkpoint


def load_weights(model: nn.Module, path: Path, low_rank: list[LowRank]) -> None:
    """Copy the weights of the checkpoint at `path` into `model`, which must have the same parameters.

    Factors come from a checkpoint with the same `low_rank`; one without any gives full weights, to be factorized.

    Raises:
        UserError: the checkpoint is of another model; the text names the first difference.
    """
    loaded = load_checkpoint(path)
    factors = loaded.config.quant.low_rank
    if factors:
        if factors != low_rank:
            raise UserError(
                f"init_from={path} is factorized by quant.low_rank={factors}, and this run has {low_rank}; "
                "give this run the same, or a checkpoint of full rank"
            )
        factorize(model, factors)
    source = loaded.model.state_dict()
    target = model.state_dict()
    for name, tensor in target.items():
        if name not in source or source[name].shape != tensor.shape:
            found = tuple(source[name].shape) if name in source else "absent"
            raise UserError(
                f"init_from={path}: {name} is {found} there and {tuple(tensor.shape)} here. "
                "Use the same model=, data.tokens and data.vocabulary_size"
            )
    model.load_state_dict({name: source[name] for name in target})  # without what only quantization uses
