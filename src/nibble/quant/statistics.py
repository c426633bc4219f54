"""How well codes stand for values."""

import math

import torch
from torch import Tensor

from nibble.quant.layer import QuantizedLayer
from nibble.quant.numerics import code_bounds, dequantize
from nibble.quant.spec import Range


def sqnr_db(values: Tensor, quantized: Tensor) -> float:
    """Signal-to-quantization-noise ratio, 10 log10(sum x^2 / sum (x - x~)^2); infinite where they are equal."""
    noise = float((values.double() - quantized.double()).square().sum())
    signal = float(values.double().square().sum())
    if noise == 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal else -math.inf


def clipped_share(values: Tensor, scale: Tensor, bits: int, range_: Range) -> float:
    """The share of values more than half a step beyond the lowest or highest code, to which they are clamped."""
    lowest, highest = code_bounds(bits, range_)
    steps = values / scale
    return float(((steps < lowest - 0.5) | (steps > highest + 0.5)).double().mean()) if values.numel() else 0.0


def code_shares(codes: Tensor, bits: int, range_: Range) -> Tensor:
    """The share of elements that each code has, from the lowest to the highest: (codes,) float64."""
    lowest, highest = code_bounds(bits, range_)
    counts = torch.bincount(codes.reshape(-1).long() - lowest, minlength=highest - lowest + 1)
    return counts.double() / max(codes.numel(), 1)


def weight_statistics(layer: QuantizedLayer) -> dict[str, float]:
    """`<weight>/sqnr_db`, `<weight>/clipped` and `<weight>/codes_used` of a layer at its present precision.

    Clipped is a share of the elements; codes used is the share of the possible codes that occur. Empty in float, and
    once frozen.
    """
    spec = layer.weight_spec
    if spec is None or layer.frozen:
        return {}
    found = {}
    for name in layer.weight_names:
        codes, scale = layer.integers(name)
        weight = getattr(layer, name).detach()
        found[f"{name}/sqnr_db"] = sqnr_db(weight, dequantize(codes, scale))
        found[f"{name}/clipped"] = clipped_share(weight, scale, spec.bits, spec.range)
        found[f"{name}/codes_used"] = float((code_shares(codes, spec.bits, spec.range) > 0).double().mean())
    return found
