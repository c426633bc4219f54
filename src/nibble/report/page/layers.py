"""Histograms of the weights of each layer and of their codes."""

from typing import Any

import torch
from torch import Tensor, nn

from nibble.quant.layer import QuantizedLayer

_BINS = 41  # odd: zero is the middle of one
_MAX_CODES = 64  # drawn one by one; if there are more, neighbours are merged


def histograms(model: nn.Module) -> dict[str, dict[str, Any]]:
    """The histograms of each weight by name, as `nibble.report.page.charts` draws them.

    {"largest": max|w|, "weights": shares in bins from -largest to largest} and, unless the weight is in float,
    {"bits": 4, "lowest": first code, "together": codes in a bin, "codes": shares}; shares in percent.
    """
    found = {}
    for name, module in model.named_modules():
        for weight_name, weight in module.named_parameters(recurse=False):
            if weight.dim() > 1:
                found[f"{name}.{weight_name}".removesuffix(".weight")] = _weights(weight) | _codes(module, weight_name)
    return found


def _weights(weight: Tensor) -> dict[str, Any]:
    largest = float(weight.detach().abs().max()) if weight.numel() else 0.0
    counts = torch.histc(weight.detach().float(), _BINS, -largest, largest) if largest else torch.zeros(_BINS)
    return {"largest": float(f"{largest:.4g}"), "weights": _percent(counts / max(weight.numel(), 1))}


def _codes(module: nn.Module, weight_name: str) -> dict[str, Any]:
    if not isinstance(module, QuantizedLayer) or weight_name not in module.weight_names or module.weight_spec is None:
        return {}
    codes = module.quantized_weight(weight_name).codes
    lowest, highest = int(codes.min()), int(codes.max())
    together = -(-(highest - lowest + 1) // _MAX_CODES)
    counts = torch.bincount((codes.reshape(-1).long() - lowest) // together)
    shares = counts.double() / codes.numel()
    return {"bits": module.weight_spec.bits, "lowest": lowest, "together": together, "codes": _percent(shares)}


def _percent(shares: Tensor) -> list[float]:
    return [float(f"{100 * share:.3g}") for share in shares.tolist()]
