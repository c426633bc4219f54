"""Statistics of quantization: signal-to-noise ratio, share of clipped values, share of each code."""

import math

import torch
from torch import Tensor

from nibble.quant.layer import QuantizedLayer
from nibble.quant.numerics import code_bounds
from nibble.quant.spec import Range
from nibble.quant.tensor import in_slices


def sqnr_db(values: Tensor, quantized: Tensor) -> float:
    """Signal-to-quantization-noise ratio, 10 log10(sum x^2 / sum (x - x~)^2); infinite where they are equal."""
    noise = float((values.double() - quantized.double()).square().sum())
    signal = float(values.double().square().sum())
    if noise == 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal else -math.inf


def clipped_share(values: Tensor, scale: Tensor, bits: int, range_: Range) -> float:
    """The share of values that are clamped: more than half a step below the lowest or above the highest code."""
    lowest, highest = code_bounds(bits, range_)
    steps = values / scale
    return float(((steps < lowest - 0.5) | (steps > highest + 0.5)).double().mean()) if values.numel() else 0.0


def code_shares(codes: Tensor, bits: int, range_: Range) -> Tensor:
    """How often each code occurs, as a share of the elements, from the lowest to the highest: (codes,) float64."""
    lowest, highest = code_bounds(bits, range_)
    counts = torch.bincount(codes.reshape(-1).long() - lowest, minlength=highest - lowest + 1)
    return counts.double() / max(codes.numel(), 1)


def weight_statistics(layer: QuantizedLayer) -> dict[str, float]:
    """Statistics of a layer at its present precision: `<weight>/sqnr_db`, `<weight>/clipped`, `<weight>/codes_used`.

    Clipped is a share of the elements; codes used is the share of the possible codes that occur. Empty in float, and
    when the layer is frozen.
    """
    spec = layer.weight_spec
    if spec is None or layer.frozen:
        return {}
    found = {}
    for name in layer.weight_names:
        quantized, weight = layer.quantized_weight(name), getattr(layer, name).detach()
        found[f"{name}/sqnr_db"] = sqnr_db(weight, quantized.dequantize())
        clipped, range_ = 0.0, Range.full  # asymmetric codes use the whole range, and clip nothing
        if quantized.zero is None:
            scale, range_ = quantized.scale, spec.range
            clipped = clipped_share(in_slices(weight, scale), scale, spec.bits, range_)
        found[f"{name}/clipped"] = clipped
        shares = code_shares(quantized.stored_codes(), spec.bits, range_)
        found[f"{name}/codes_used"] = float((shares > 0).double().mean())
    return found
