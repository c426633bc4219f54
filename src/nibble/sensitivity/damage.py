"""Measures the damage of a layer at fewer bits: the rise of the loss when only that layer is quantized."""

from collections.abc import Iterator, Sequence

import torch

from nibble.data.batch import Batch
from nibble.model.transducer import Transducer
from nibble.progress import track
from nibble.quant.convert import quantized_modules, set_precision
from nibble.quant.rules import assign
from nibble.quant.spec import ActivationSpec, Precision, QuantConfig, Rule, WeightSpec
from nibble.runs.checkpoint import quantize
from nibble.runs.loaded import Loaded
from nibble.sensitivity.losses import loss_per_label
from nibble.training.losses import of_labels

Damage = dict[str, dict[int, float]]  # layer -> bits -> nats per label


def measured_damage(loaded: Loaded, bits: Sequence[int], batches: Sequence[Batch]) -> Damage:
    """The loss with one layer at few bits and 8-bit activations, the others in float, minus the loss in float.

    It may be below 0: rounding may help by chance.

    Args:
        loaded: float weights.
        bits: the widths to try.
        batches: the same ones for each layer and width, on the device of the model.
    """
    layers = len(assign(loaded.model, [Rule()]))
    loss = of_labels(loaded.config.model, loaded.config.loss)
    base = loss_per_label(loss, loaded.model, batches)
    damage: Damage = {}
    title = "one layer at fewer bits at a time"
    for width, name, model in track(_one_lowered(loaded, bits, batches[0].features.device), title, layers * len(bits)):
        damage.setdefault(name, {})[width] = loss_per_label(loss, model, batches) - base
    return damage


def lowered(loaded: Loaded, bits: int) -> Loaded:
    """A copy with all weights at `bits` and all activations at 8 bits, without training."""
    return quantize(loaded, QuantConfig(f"int{bits}", [Rule("**", WeightSpec(bits=bits), ActivationSpec())]))


def _one_lowered(loaded: Loaded, bits: Sequence[int], device: torch.device) -> Iterator[tuple[int, str, Transducer]]:
    """Width, layer and the model with only that layer at that width."""
    for width in bits:
        model = lowered(loaded, width).model.to(device)
        set_precision(model, Precision.float)
        for name, layer in quantized_modules(model).items():
            layer.set_precision(Precision.rules, 1.0)
            yield width, name, model
            layer.set_precision(Precision.float, 1.0)
