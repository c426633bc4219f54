"""How well codes stand for values."""

import math

import torch
from torch import Tensor

from nibble.quant.layer import QuantizedLayer
from nibble.quant.numerics import code_bounds, dequantize, in_slices
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
        codes, scale, zero = layer.integers(name)
        weight = getattr(layer, name).detach()
        found[f"{name}/sqnr_db"] = sqnr_db(weight, dequantize(codes, scale))
        # What was taken from asymmetric codes is given back here: then they use one range, and nothing is clipped.
        codes = codes if zero is None else (in_slices(codes, zero) + zero).view(codes.shape)
        range_ = spec.range if zero is None else Range.full
        found[f"{name}/clipped"] = (
            0.0 if zero is not None else clipped_share(in_slices(weight, scale), scale, spec.bits, range_)
        )
        found[f"{name}/codes_used"] = float((code_shares(codes, spec.bits, range_) > 0).double().mean())
    return found
