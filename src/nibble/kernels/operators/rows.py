"""Codes of rows with one scale for each row; also of rows that a float step makes first, in the same pass.

The float step is computed in float32. Implementations may sum it in another order, so one of their codes may be off by
one where the value lies between two codes.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from nibble.kernels import checks
from nibble.kernels.operator import Operator
from nibble.kernels.rounding import HIGHEST_INT8, divide, to_codes, without_zeros


class QuantizeRows(NamedTuple):
    """Codes int8 (..., K), contiguous, and scales float32 (..., 1).

    The narrow range: s = max|x| / 127, 1 for a row of zeros; q = x / s in float32, rounded half to even. A row with
    NaN or infinity gets a scale of NaN or infinity, and codes without a meaning.
    """

    x: Tensor  # float16, bfloat16 or float32 (..., K)

    def check(self, name: str = "quantize_rows") -> None:
        """Raise RuntimeError unless the type fits."""
        checks.floating(name, self.x)
        torch._check(self.x.dim() > 0, lambda: f"{name}: a scalar has no rows; give (..., K)")

    def shape(self) -> tuple[Tensor, Tensor]:
        """The result without values."""
        scale = self.x.new_empty((*self.x.shape[:-1], 1), dtype=torch.float32)
        return self.x.new_empty(self.x.shape, dtype=torch.int8), scale

    def reference(self) -> tuple[Tensor, Tensor]:
        """The result in plain torch."""
        values = self.x.float()
        if not values.numel():
            return values.to(torch.int8).contiguous(), values.new_ones((*values.shape[:-1], 1))
        largest = torch.maximum(values.amax(-1, keepdim=True), values.amin(-1, keepdim=True).neg_())
        scale = without_zeros(divide(largest, HIGHEST_INT8))
        codes = to_codes(values, scale, -HIGHEST_INT8, HIGHEST_INT8)
        return codes.to(torch.int8, memory_format=torch.contiguous_format), scale


class SiluQuantizeRows(NamedTuple):
    """As `QuantizeRows`, of SiLU(x)."""

    x: Tensor

    def check(self) -> None:
        """Raise RuntimeError unless the type fits."""
        QuantizeRows(self.x).check("silu_quantize_rows")

    def shape(self) -> tuple[Tensor, Tensor]:
        """The result without values."""
        return QuantizeRows(self.x).shape()

    def reference(self) -> tuple[Tensor, Tensor]:
        """The result in plain torch."""
        return QuantizeRows(F.silu(self.x.float())).reference()


class NormQuantizeRows(NamedTuple):
    """As `QuantizeRows`, of the layer norm of x."""

    x: Tensor
    weight: Tensor  # float32 (K,)
    bias: Tensor  # float32 (K,)
    eps: float  # added to the variance

    def check(self) -> None:
        """Raise RuntimeError unless types and sizes fit."""
        name = "norm_quantize_rows"
        checks.same_device(name, self.x, self.weight, self.bias)
        QuantizeRows(self.x).check(name)
        checks.float32(f"{name}: weight", self.weight, tuple(self.x.shape[-1:]))
        checks.float32(f"{name}: bias", self.bias, tuple(self.x.shape[-1:]))

    def shape(self) -> tuple[Tensor, Tensor]:
        """The result without values."""
        return QuantizeRows(self.x).shape()

    def reference(self) -> tuple[Tensor, Tensor]:
        """The result in plain torch."""
        return QuantizeRows(
            F.layer_norm(self.x.float(), self.weight.shape, self.weight, self.bias, self.eps)
        ).reference()


_RESULT = "(Tensor codes, Tensor scale)"

quantize_rows = Operator(f"quantize_rows(Tensor x) -> {_RESULT}", QuantizeRows)
silu_quantize_rows = Operator(f"silu_quantize_rows(Tensor x) -> {_RESULT}", SiluQuantizeRows)
norm_quantize_rows = Operator(
    f"norm_quantize_rows(Tensor x, Tensor weight, Tensor bias, float eps) -> {_RESULT}", NormQuantizeRows
)
