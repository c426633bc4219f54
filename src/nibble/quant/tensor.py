"""A tensor as integers: the one type that quantized weights and activations have.

Only this module turns codes into values, adds or subtracts zero points, and packs codes into bytes.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from nibble.quant.packing import pack, unpack
from nibble.quant.spec import Sparsity


class QuantizedTensor(NamedTuple):
    """Codes and their scales: value = codes x scale.

    Asymmetric weights also have zero points. Their codes are held with the zero point subtracted, so that a product of
    codes needs no correction; `stored_codes` adds it again.

    Shapes of the scale: a weight's is (N, 1, ...) per channel, (1, 1, ...) per tensor, (N, K / group, 1) in groups of
    a weight (N, K). An activation's has the activation's number of dimensions, with 1 where a scale is shared.
    """

    codes: Tensor  # int8
    scale: Tensor
    zero: Tensor | None = None  # int8, the scale's shape; None if symmetric

    @classmethod
    def from_stored(cls, stored: Tensor, scale: Tensor, zero: Tensor | None) -> "QuantizedTensor":
        """The inverse of `stored_codes`: subtract the zero points, if there are any."""
        codes = stored if zero is None else (in_slices(stored, zero) - zero).view(stored.shape)
        return cls(codes, scale, zero)

    @classmethod
    def from_bytes(
        cls, packed: Tensor, like: "QuantizedTensor", bits: int, sparsity: Sparsity | None = None
    ) -> "QuantizedTensor":
        """The inverse of `to_bytes`.

        Args:
            packed: uint8, one dimension.
            like: its scale and its zero point are taken over; of its codes only the shape is read.
            bits: of a code.
            sparsity: of the rule.

        Raises:
            ValueError: the bytes cannot hold these codes; see `nibble.quant.packing.unpack`.
        """
        return cls.from_stored(unpack(packed, bits, like.codes.shape, sparsity), like.scale, like.zero)

    def to_bytes(self, bits: int, sparsity: Sparsity | None = None) -> Tensor:
        """The stored codes, packed: uint8, one dimension. See `nibble.quant.packing`."""
        return pack(self.stored_codes(), bits, sparsity)

    def stored_codes(self) -> Tensor:
        """The codes within the range of their bits: with the zero points added, if there are any."""
        if self.zero is None:
            return self.codes
        return (in_slices(self.codes, self.zero) + self.zero).view(self.codes.shape)

    def dequantize(self, dtype: torch.dtype | None = None) -> Tensor:
        """The values that the codes stand for: computed in the scale's type, then cast to `dtype` if it is given."""
        codes, scale = self.codes, self.scale
        layout = torch.contiguous_format if self.grouped else torch.preserve_format
        if codes.is_cuda:  # one pass over memory: a byte is read and a value of `dtype` written
            values = torch.empty_like(codes, dtype=dtype or scale.dtype, memory_format=layout)
            torch.mul(in_slices(codes, scale), scale, out=in_slices(values, scale))
            return values
        # In place on a copy: a product of int8 and float32 tensors takes several times as long on CPU.
        values = codes.to(scale.dtype, copy=True, memory_format=layout)
        in_slices(values, scale).mul_(scale)
        return values if dtype is None else values.to(dtype)

    @property
    def grouped(self) -> bool:
        """Whether several scales share an output channel."""
        return self.scale.dim() > self.codes.dim()

    def channel_scale(self) -> Tensor:
        """The scale of each output channel of a weight that has no groups: (N,)."""
        return self.scale.reshape(-1).expand(self.codes.shape[0])


class Factor(NamedTuple):
    """One side of a product of codes, and the tensor that receives its gradient."""

    quantized: QuantizedTensor
    source: Tensor | None = None  # what was quantized; None if nothing receives a gradient
    packed: Tensor | None = None  # a weight's codes as `nibble.kernels.nibbles.pack_rows` packs them


def in_slices(x: Tensor, scale: Tensor) -> Tensor:
    """x shaped so that a weight's scale broadcasts: (N, K) becomes (N, K / group, group) for scales in groups."""
    return x.reshape(*scale.shape[:-1], -1) if scale.dim() > x.dim() else x
