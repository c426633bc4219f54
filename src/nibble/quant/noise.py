"""Pseudo-quantization noise: train with noise as wide as a step in place of rounding, evaluate with codes.

    w~ = clamp(w + s u, lowest s, highest s)        u ~ U(-1/2, 1/2), drawn in each forward pass

Rounding errors of many weights look like such noise. Unlike rounding it is differentiable, and here so is the scale:
the loss that the noise costs comes back to the largest weight of a slice, which sets its width. Qiu et al. (2023, RAND,
arXiv:2305.15536) find that noise without this signal to the outliers is worse than rounding, and with it better.
"""

import torch
from torch import Tensor

from nibble.quant.numerics import code_bounds
from nibble.quant.spec import Range, WeightScale, WeightSpec
from nibble.quant.tensor import QuantizedTensor, in_slices


def with_noise(weight: Tensor, quantized: QuantizedTensor, spec: WeightSpec, log_scale: Tensor | None = None) -> Tensor:
    """w~, of the weight's shape. Gradients go to the weight, directly and through the scale, and to `log_scale`.

    Args:
        weight: (N, ...), in the type computed with.
        quantized: the weight's scales, and its zero points if it has any; its codes are not read.
        spec: how the scales were computed.
        log_scale: p, one for each scale, where scales are learned.
    """
    scale = quantized.scale
    slices = in_slices(weight, scale)
    step = scale * _following(slices, scale, spec)
    if log_scale is not None:
        step = step * (log_scale - log_scale.detach()).exp().view(scale.shape)
    lowest, highest = code_bounds(spec.bits, spec.range if spec.symmetric else Range.full)
    zero = 0 if quantized.zero is None else quantized.zero.to(scale.dtype)
    width = 2 if spec.bits == 1 else 1  # the codes of a sign are two apart
    noisy = slices + (torch.rand_like(slices) - 0.5) * (step * width)
    noisy = torch.minimum(torch.maximum(noisy, (lowest - zero) * step), (highest - zero) * step)
    return noisy.view(weight.shape)


def _following(slices: Tensor, scale: Tensor, spec: WeightSpec) -> Tensor:
    """1 for each scale, with the gradient of the scale's logarithm; 0 for a slice of zeros, which has no error.

    The scale is proportional to the largest weight, to the range if asymmetric, or to the mean magnitude.
    """
    dims = tuple(dim for dim, size in enumerate(scale.shape) if size == 1)
    above, below = slices.amax(dims, keepdim=True), slices.amin(dims, keepdim=True)
    if not spec.symmetric:
        extent = above.clamp(min=0) - below.clamp(max=0)
    elif spec.scale_rule is WeightScale.mean:
        extent = slices.abs().mean(dims, keepdim=True)
    else:
        lowest, highest = code_bounds(spec.bits, spec.range)
        extent = torch.maximum(above / highest, below / lowest)
    return extent / extent.detach().clamp(min=torch.finfo(extent.dtype).tiny)
