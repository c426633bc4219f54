"""The two budgets: average bits of the quantized weights, and bytes of the bundle."""

from collections.abc import Mapping, Sequence

from nibble.errors import UserError
from nibble.quant.convert import quantized_modules
from nibble.quant.spec import QuantConfig
from nibble.runs.bundle import unwritten_bytes
from nibble.runs.checkpoint import quantize
from nibble.runs.loaded import Loaded
from nibble.runs.tensors import stored_of
from nibble.sensitivity.assignment import best_assignment, total
from nibble.sensitivity.damage import Damage, lowered
from nibble.sensitivity.options import SensitivityConfig
from nibble.sensitivity.rules import rules_of

_TRIES = 8  # bisection steps to fit the layers and their rules into a bundle: at most 1/128 of the range is wasted


def check_budget(loaded: Loaded, options: SensitivityConfig) -> None:
    """Raise `UserError` if even the fewest bits everywhere are too much; known before anything is measured."""
    bits, average, target = options.bits, options.average_bits, options.target_bytes
    if average is not None and average < bits[0]:
        raise UserError(f"average_bits={average:g} is not possible with bits={bits}: give {bits[0]} to {bits[-1]}")
    if target is None:
        return
    layers = weight_counts(loaded)
    smallest, largest = (
        assigned_bytes(loaded, dict.fromkeys(layers, width), options.name) for width in (bits[0], bits[-1])
    )
    if target < smallest:
        raise UserError(
            f"target_bytes={target} is not possible with bits={bits}: bundles of this model have {smallest} bytes "
            f"at {bits[0]} bits to {largest} bytes at {bits[-1]}"
        )


def assign_within(loaded: Loaded, damage: Damage, options: SensitivityConfig) -> dict[str, int]:
    """Layer -> bits, with the least sum of damages within the budget of `options`, which passed `check_budget`."""
    if options.average_bits is not None:
        return _within_average(weight_counts(loaded), damage, options.bits, options.average_bits)
    return _within_bytes(loaded, damage, options)


def mixed(loaded: Loaded, assignment: Mapping[str, int], name: str) -> QuantConfig:
    """The rules of an assignment for this model."""
    layers = quantized_modules(lowered(loaded, 8).model)
    look_ups = [layer for layer, module in layers.items() if not module.takes_activation]
    return QuantConfig(name, rules_of(assignment, look_ups), low_rank=loaded.config.quant.low_rank)


def weight_counts(loaded: Loaded) -> dict[str, int]:
    """Layer -> how many of its weights become integers."""
    layers = quantized_modules(lowered(loaded, 8).model)
    return {
        name: sum(getattr(layer, weight).numel() for weight in layer.weight_names) for name, layer in layers.items()
    }


def average_bits(counts: Mapping[str, int], assignment: Mapping[str, int]) -> float:
    """Mean bits of the quantized weights, scales left out."""
    return sum(counts[layer] * bits for layer, bits in assignment.items()) / sum(counts.values())


def assigned_bytes(loaded: Loaded, assignment: Mapping[str, int], name: str) -> int:
    """The size of all files of the bundle that an assignment makes."""
    assigned = quantize(loaded, mixed(loaded, assignment, name))
    return unwritten_bytes(assigned, stored_of(assigned))


def layer_bytes(loaded: Loaded, bits: Sequence[int]) -> dict[str, dict[int, int]]:
    """Layer -> bits -> bytes of its tensors in a bundle: codes, scales, and its bias if it has one."""
    stored: dict[str, dict[int, int]] = {}
    for width in bits:
        at_width = lowered(loaded, width)
        tensors = stored_of(at_width)
        for layer in quantized_modules(at_width.model):
            of_layer = (tensor.size_bytes for name, tensor in tensors.items() if name.rpartition(".")[0] == layer)
            stored.setdefault(layer, {})[width] = sum(of_layer)
    return stored


def _within_average(counts: Mapping[str, int], damage: Damage, bits: Sequence[int], average: float) -> dict[str, int]:
    cost = {layer: {width: count * width for width in bits} for layer, count in counts.items()}
    return best_assignment(damage, cost, average * sum(counts.values()))


def _within_bytes(loaded: Loaded, damage: Damage, options: SensitivityConfig) -> dict[str, int]:
    """As `assign_within`, for all files of the bundle.

    What belongs to no layer (norms, names, tokenizer) takes the same at all bits, but for the rules in the bundle's
    configuration, which are known once bits are assigned: what they leave for the layers is found by bisection.
    """
    target = int(options.target_bytes or 0)
    cost = layer_bytes(loaded, options.bits)
    fewest = dict.fromkeys(cost, options.bits[0])
    low = total(cost, fewest)
    budget = high = low + target - assigned_bytes(loaded, fewest, options.name)
    best = fewest
    for _ in range(_TRIES):
        assignment = best_assignment(damage, cost, budget)
        if assigned_bytes(loaded, assignment, options.name) <= target:
            best, low = assignment, budget
        else:
            high = budget
        if low == high:
            break
        budget = (low + high) / 2
    return best
