"""Norm decay: a penalty on the largest weight of each slice, which sets the scale and so the error of all others.

After robustness-aware norm decay (Qiu et al., 2023, RAND, arXiv:2305.15536): outliers get too little regularisation,
so they are regularised as part of the loss. Of the paper only the abstract was at hand; the formula is our own.
"""

import torch
from torch import Tensor, nn

from nibble.quant.convert import quantized_modules
from nibble.quant.spec import WeightGranularity, WeightSpec


def norm_decay(model: nn.Module) -> Tensor:
    """Sum over weights of the mean over slices of max|w| / rms(w): a scalar, float32.

    A slice is the part of a weight that shares a scale under the rules, whatever the present precision. The ratio,
    known as the crest factor, does not depend on how a layer is scaled. Only the largest weights get its gradient: the
    root mean square is held constant. 0 for a model without quantized weights.
    """
    factors = [
        crest_factor(getattr(layer, name), layer.rule.weight)
        for layer in quantized_modules(model).values()
        for name in layer.weight_names
        if layer.rule.weight is not None and not layer.frozen
    ]
    return torch.stack(factors).sum() if factors else torch.zeros(())


def crest_factor(weight: Tensor, spec: WeightSpec) -> Tensor:
    """Mean over the slices of a weight (N, ...) that share a scale of max|w| / rms(w), for the gradient of max|w|."""
    if spec.group_size is not None:
        slices = weight.reshape(-1, spec.group_size)
    else:
        slices = weight.reshape(weight.shape[0] if spec.granularity is WeightGranularity.per_channel else 1, -1)
    slices = slices.float()
    rms = slices.detach().square().mean(1).sqrt().clamp(min=torch.finfo(torch.float32).tiny)
    return (slices.abs().amax(1) / rms).mean()
