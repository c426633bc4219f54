"""Estimates the damage of a layer at fewer bits from gradients at the float weights.

To second order, with the empirical Fisher information of single utterances in place of the Hessian, of which only
the diagonal is kept (LeCun et al., 1990, Optimal Brain Damage; Kirkpatrick et al., 2017, for the Fisher):

    damage = 1/2 sum_i F_ii (w_i - w~_i)^2        F_ii = sum over utterances of (d loss / d w_i)^2 / labels

The first-order term is left out: at a trained optimum it is 0. Activations are taken to be exact.
"""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from nibble.data.batch import Batch
from nibble.progress import track
from nibble.quant.convert import quantized_modules
from nibble.runs.loaded import Loaded
from nibble.sensitivity.damage import Damage, lowered
from nibble.sensitivity.losses import batch_loss, label_count, one_by_one
from nibble.training.losses import of_labels


def estimated_damage(loaded: Loaded, bits: Sequence[int], batches: Sequence[Batch]) -> Damage:
    """The estimate for each layer and width, after one pass over `batches` with an utterance at a time.

    Args:
        loaded: float weights.
        bits: the widths.
        batches: on the device of the model.
    """
    utterances = track(one_by_one(batches), "gradients", sum(map(len, batches)))
    loss = of_labels(loaded.config.model, loaded.config.loss)
    squares = squared_gradients(loaded.model, (batch_loss(loss, loaded.model, one) for one in utterances))
    damage: Damage = {}
    for width in bits:
        for name, moved in squared_moves(loaded.model, lowered(loaded, width).model).items():
            total = sum(float((squares[weight] * move).sum()) for weight, move in moved.items())
            damage.setdefault(name, {})[width] = 0.5 * total / label_count(batches)
    return damage


def squared_gradients(model: nn.Module, losses: Iterable[Tensor]) -> dict[str, Tensor]:
    """Parameter name -> the sum over scalar `losses` of its squared gradient."""
    parameters = dict(model.named_parameters())
    squares = {name: torch.zeros_like(parameter) for name, parameter in parameters.items()}
    for loss in losses:
        gradients = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
        for square, gradient in zip(squares.values(), gradients, strict=True):
            if gradient is not None:
                square.addcmul_(gradient, gradient)
    return squares


@torch.no_grad()
def squared_moves(model: nn.Module, quantized: nn.Module) -> dict[str, dict[str, Tensor]]:
    """Layer -> parameter name -> (w - w~)^2, for each layer that is quantized in `quantized`, a copy of `model`."""
    weights = dict(model.named_parameters())
    moves: dict[str, dict[str, Tensor]] = {}
    for name, layer in quantized_modules(quantized).items():
        for weight in layer.weight_names:
            full, values = f"{name}.{weight}", layer.weight_source(weight).values()
            moves.setdefault(name, {})[full] = (weights[full] - values.to(weights[full].device)).square()
    return moves
