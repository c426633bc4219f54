"""Quantizes all weights of a network in one launch at the start of a step, on a GPU.

Weight by weight, a step of a large Conformer would spend some 3,600 launches on it, most of them shorter than the
launch itself. On a CPU, where a launch costs nothing, each layer quantizes its weight when it needs it.
"""

from collections import defaultdict
from typing import NamedTuple

import torch
from torch import Tensor, nn

from nibble.kernels import ops
from nibble.quant.convert import quantized_modules
from nibble.quant.finite import require_finite
from nibble.quant.layer import QuantizedLayer
from nibble.quant.numerics import weight_fault
from nibble.quant.spec import Range, WeightGranularity, WeightScale, WeightSpec
from nibble.quant.tensor import QuantizedTensor

DEVICES = ("cuda",)  # where it saves time


class _Weight(NamedTuple):
    layer: QuantizedLayer
    name: str
    values: Tensor  # (N, ...)
    spec: WeightSpec

    @property
    def terms(self) -> int:
        """The number of successive values that share a scale."""
        return self.spec.group_size or self.values[0].numel()


def quantize_at_once(network: nn.Module) -> None:
    """Quantize the weights that are on a GPU, in one launch for each of their types, and give them to their layers.

    Weights with zero points, masks, learned or searched scales, of one bit or per tensor are left to their layers.

    Args:
        network: prepared, within `nibble.parameter_cache.constant_parameters`.

    Raises:
        UserError: a weight has NaN, infinity or a magnitude that no float16 scale covers; at the end of a step within
            `nibble.quant.finite.checked_at_end`.
    """
    alike: dict[tuple[torch.device, torch.dtype], list[_Weight]] = defaultdict(list)
    for layer in quantized_modules(network).values():
        spec = layer.weight_spec
        if spec is None or layer.frozen or layer.rule.sparsity is not None or not _is_common(spec):
            continue
        for name in layer.weight_names:
            values = layer._parameters.get(name)  # None if each access computes it, as with weight_norm
            if values is not None and _is_plain(values):
                alike[values.device, values.dtype].append(_Weight(layer, name, values, spec))
    for weights in alike.values():
        _quantize(weights)


def _is_common(spec: WeightSpec) -> bool:
    per_channel = spec.granularity is WeightGranularity.per_channel
    absmax = spec.scale_rule is WeightScale.absmax and not spec.learned
    return per_channel and absmax and spec.symmetric and spec.range is Range.narrow and spec.bits > 1


def _is_plain(weight: Tensor) -> bool:
    on_gpu = weight.device.type in DEVICES
    return on_gpu and weight.dtype != torch.float64 and weight.is_contiguous() and weight.numel() > 0


@torch.no_grad()
def _quantize(weights: list[_Weight]) -> None:
    terms = [weight.terms for weight in weights]
    codes, scale = ops.quantize_weights(
        [weight.values for weight in weights], terms, [weight.spec.bits for weight in weights]
    )
    scales = scale.split([weight.values.numel() // length for weight, length in zip(weights, terms, strict=True)])
    require_finite(scale, lambda: _fault(weights, scales))
    for weight, found, of_weight in zip(weights, codes, scales, strict=True):
        shape = (len(found), -1, 1) if weight.spec.group_size else (-1, *(1 for _ in found.shape[1:]))
        weight.layer.keep_quantized(weight.name, QuantizedTensor(found, of_weight.view(shape)))


def _fault(weights: list[_Weight], scales: tuple[Tensor, ...]) -> str:
    first = next(weight for weight, scale in zip(weights, scales, strict=True) if not scale.isfinite().all())
    return weight_fault(first.values.detach(), f"{first.layer.layer_name}.{first.name}")
