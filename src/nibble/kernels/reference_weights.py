"""Many weights quantized at once, in plain torch: what runs where nothing faster is registered."""

from collections.abc import Sequence

import torch
from torch import Tensor

from nibble.kernels.reference_linear import FLOATS
from nibble.kernels.rounding import divide, to_codes, without_zeros


def quantize_weights(
    weights: Sequence[Tensor], terms: Sequence[int], bits: Sequence[int]
) -> tuple[list[Tensor], Tensor]:
    """Weights (N, ...) -> codes int8 of the shape of each, and the scales of all in turn, float32."""
    check_quantize_weights(weights, terms, bits)
    codes, scales = [], []
    for weight, length, width in zip(weights, terms, bits, strict=True):
        slices, highest = weight.float().reshape(-1, length), 2 ** (width - 1) - 1
        scale = divide(slices.abs().amax(1, keepdim=True), highest)
        scale = without_zeros(scale.to(torch.float16).float())
        codes.append(to_codes(slices, scale, -highest, highest).to(torch.int8).view(weight.shape))
        scales.append(scale.view(-1))
    return codes, torch.cat(scales)


def check_quantize_weights(weights: Sequence[Tensor], terms: Sequence[int], bits: Sequence[int]) -> None:
    """Raise RuntimeError unless types, sizes and numbers of bits fit."""
    name = "quantize_weights"
    torch._check(
        len(weights) == len(terms) == len(bits) > 0,
        lambda: f"{name}: {len(weights)} weights, {len(terms)} terms and {len(bits)} bits; give one of each a weight",
    )
    for weight, length, width in zip(weights, terms, bits, strict=True):
        torch._check(
            weight.dtype in FLOATS and (weight.dtype, weight.device) == (weights[0].dtype, weights[0].device),
            lambda weight=weight: (
                f"{name}: {weight.dtype} on {weight.device} beside {weights[0].dtype} on {weights[0].device}; "
                "give float16, bfloat16 or float32, all of one type on one device"
            ),
        )
        torch._check(
            weight.is_contiguous() and weight.numel() > 0 and length > 0 and weight.numel() % length == 0,
            lambda weight=weight, length=length: (
                f"{name}: {tuple(weight.shape)}, strides {weight.stride()}, in slices of {length}; "
                "give a contiguous weight that slices divide"
            ),
        )
        torch._check(2 <= width <= 8, lambda width=width: f"{name}: {width} bits; give 2 to 8")
