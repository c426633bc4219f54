"""Takes a network of one size out of a run that trained several: `model.sizes`."""

from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor

from nibble.config import Config
from nibble.model.nested import corners
from nibble.runs.loaded import prepared_model
from nibble.shapes import shapes_only


def taken_out(
    config: Config, vocabulary_size: int, state: Mapping[str, Tensor], size: str | None
) -> tuple[Config, dict[str, Tensor]]:
    """The configuration and the weights of one size, as those of a run of that size alone.

    Args:
        config: of the run.
        vocabulary_size: V, blank included.
        state: the weights of the whole network, by name.
        size: its name; None: the whole network, without what only smaller sizes use.

    Raises:
        UserError: the run has no such size.
    """
    names = [one.name for one in config.model.sizes]
    alone = replace(config, model=config.model.whole if size is None else config.model.at_size(size))
    with shapes_only():
        shapes = {name: tensor.shape for name, tensor in prepared_model(alone, vocabulary_size).state_dict().items()}
    found = corners(state, shapes, None if size is None else names.index(size))
    return alone, {name: tensor.clone() for name, tensor in found}
