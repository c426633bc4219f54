"""Which parameters the optimizer treats alike: how much they decay, and how fast they learn."""

from collections.abc import Iterable
from typing import Any

from torch import nn

from nibble.model.transducer import Transducer
from nibble.training.options import OptimizerConfig


def parameter_groups(module: nn.Module, network: Transducer, options: OptimizerConfig) -> list[dict[str, Any]]:
    """The groups of all parameters of `module`: weight decay on matrices only, a learning rate for each depth.

    With `options.layer_decay` d, block n of N learns at d^(N - n) times the learning rate, n from 0 at the bottom; what
    of the encoder lies outside its blocks at d^(N + 1); all else, such as the joiner, at the full rate. The lower a
    layer, the more of what it learnt before serves any task (Howard and Ruder, 2018).
    """
    depth = _depths(network) if options.layer_decay < 1 else {}
    groups: dict[tuple[int, bool], list[nn.Parameter]] = {(0, True): [], (0, False): []}
    for parameter in module.parameters():
        groups.setdefault((depth.get(id(parameter), 0), parameter.ndim > 1), []).append(parameter)
    return [
        {
            "params": parameters,
            "weight_decay": options.weight_decay if decayed else 0.0,
            "lr": options.learning_rate * options.layer_decay**layers,
        }
        for (layers, decayed), parameters in groups.items()
    ]


def drop_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Leave parameters as they are in this step: an optimizer skips those without a gradient."""
    for parameter in parameters:
        parameter.grad = None


def _depths(network: Transducer) -> dict[int, int]:
    """By a parameter of the encoder: how many layers lie above it, its own included."""
    blocks = network.encoder.blocks
    depths = {id(parameter): len(blocks) + 1 for parameter in network.encoder.parameters()}
    for number, block in enumerate(blocks):
        depths.update({id(parameter): len(blocks) - number for parameter in block.parameters()})
    return depths
