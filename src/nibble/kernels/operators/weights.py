"""Many weights quantized at once."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from nibble.kernels import checks
from nibble.kernels.operator import Operator
from nibble.kernels.rounding import divide, to_codes, without_zeros


class QuantizeWeights(NamedTuple):
    """Codes of each weight, int8 of its shape, and the scales of all slices of all weights in turn, float32.

    The narrow range: the scale of a slice is max|w| / (2^(bits - 1) - 1), rounded to float16, 1 for a slice of zeros.
    A slice with NaN or infinity, or too large for float16, gets a scale of NaN or infinity, and codes without a
    meaning.
    """

    weights: Sequence[Tensor]  # contiguous, (N, ...), of one type of 16 or 32 bits, on one device
    terms: Sequence[int]  # for each weight: how many successive values share a scale; they are a slice
    bits: Sequence[int]  # for each weight: 2 to 8

    def check(self) -> None:
        """Raise RuntimeError unless types, sizes and numbers of bits fit."""
        name, (weights, terms, bits) = "quantize_weights", self
        torch._check(
            len(weights) == len(terms) == len(bits) > 0,
            lambda: (
                f"{name}: {len(weights)} weights, {len(terms)} terms and {len(bits)} bits; give one of each a weight"
            ),
        )
        for weight, length, width in zip(weights, terms, bits, strict=True):
            torch._check(
                weight.dtype in checks.FLOATS
                and (weight.dtype, weight.device) == (weights[0].dtype, weights[0].device),
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

    def shape(self) -> tuple[list[Tensor], Tensor]:
        """The result without values."""
        slices = sum(weight.numel() // length for weight, length in zip(self.weights, self.terms, strict=True))
        codes = [torch.empty_like(weight, dtype=torch.int8) for weight in self.weights]
        return codes, self.weights[0].new_empty(slices, dtype=torch.float32)

    def reference(self) -> tuple[list[Tensor], Tensor]:
        """The result in plain torch."""
        codes, scales = [], []
        for weight, length, width in zip(self.weights, self.terms, self.bits, strict=True):
            slices, highest = weight.float().reshape(-1, length), 2 ** (width - 1) - 1
            scale = divide(slices.abs().amax(1, keepdim=True), highest)
            scale = without_zeros(scale.to(torch.float16).float())
            codes.append(to_codes(slices, scale, -highest, highest).to(torch.int8).view(weight.shape))
            scales.append(scale.view(-1))
        return codes, torch.cat(scales)


quantize_weights = Operator(
    "quantize_weights(Tensor[] weights, int[] terms, int[] bits) -> (Tensor[] codes, Tensor scale)", QuantizeWeights
)
