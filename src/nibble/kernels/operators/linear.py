"""Linear layers on codes.

Float steps follow each other in one order, each rounded to float32, without fused multiply-add:

    y = ((float(sums) s_x) s_w) + b        sums: int32, exact

Only the result is rounded to a shorter type, if one is asked for.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from nibble.kernels import checks
from nibble.kernels.nibbles import unpack_rows
from nibble.kernels.operator import Operator
from nibble.kernels.operators.bias_gradient import bias_gradient
from nibble.kernels.operators.matmul import IntMatmul


class LinearW8A8(NamedTuple):
    """(codes weight^T) scale weight_scale + bias: (M, N) of type `dtype`."""

    codes: Tensor  # int8 (M, K)
    scale: Tensor  # float32 (M, 1)
    weight: Tensor  # int8 (N, K)
    weight_scale: Tensor  # float32 (N,)
    bias: Tensor | None  # float32 (N,)
    dtype: torch.dtype = torch.float32  # of the result, which is rounded once, at the end

    def check(self) -> None:
        """Raise RuntimeError unless types and sizes fit."""
        name = "linear_w8a8"
        checks.result_type(name, self.dtype)
        checks.same_device(name, self.codes, self.scale, self.weight, self.weight_scale, self.bias)
        checks.int8(name, "codes are", self.codes)
        checks.int8(name, "weight is", self.weight)
        checks.matrices(name, self.codes, self.weight)
        checks.terms(name, self.codes.shape[1])
        checks.float32(f"{name}: scale", self.scale, (self.codes.shape[0], 1))
        _check_outputs(name, self.weight.shape[0], self.weight_scale, self.bias)

    def shape(self) -> Tensor:
        """The result without values."""
        return self.scale.new_empty((self.codes.shape[0], self.weight.shape[0]), dtype=self.dtype)

    def reference(self) -> Tensor:
        """The result in plain torch."""
        out = IntMatmul(self.codes, self.weight).reference().to(torch.float32)
        out = out.mul_(self.scale).mul_(self.weight_scale)
        return (out if self.bias is None else out.add_(self.bias)).to(self.dtype)


class LinearW4A8(NamedTuple):
    """As `LinearW8A8` in float32, with two codes of the weight in a byte."""

    codes: Tensor  # int8 (M, K)
    scale: Tensor  # float32 (M, 1)
    packed: Tensor  # uint8 (N, ceil(K / 2)), of `nibble.kernels.nibbles.pack_rows`
    weight_scale: Tensor  # float32 (N,)
    bias: Tensor | None  # float32 (N,)

    def check(self) -> None:
        """Raise RuntimeError unless types and sizes fit."""
        name = "linear_w4a8"
        checks.same_device(name, self.codes, self.scale, self.packed, self.weight_scale, self.bias)
        checks.int8(name, "codes are", self.codes)
        checks.packed_bytes(name, self.packed)
        checks.matrices(name, self.codes, self.packed, packed=True)
        checks.terms(name, self.codes.shape[1])
        checks.float32(f"{name}: scale", self.scale, (self.codes.shape[0], 1))
        _check_outputs(name, self.packed.shape[0], self.weight_scale, self.bias)

    @property
    def unpacked(self) -> LinearW8A8:
        """The same product with one code in a byte."""
        weight = unpack_rows(self.packed, self.codes.shape[1])
        return LinearW8A8(self.codes, self.scale, weight, self.weight_scale, self.bias)

    def shape(self) -> Tensor:
        """The result without values."""
        return self.scale.new_empty((self.codes.shape[0], self.packed.shape[0]))

    def reference(self) -> Tensor:
        """The result in plain torch."""
        return self.unpacked.reference()


class LinearW4A16(NamedTuple):
    """x w~^T + bias, accumulated in float32, where w~ = codes x weight_scale: (M, N) of x's type."""

    x: Tensor  # float16, bfloat16 or float32 (M, K)
    packed: Tensor  # as in `LinearW4A8`
    weight_scale: Tensor  # float32 (N,)
    bias: Tensor | None  # float32 (N,)

    def check(self) -> None:
        """Raise RuntimeError unless types and sizes fit."""
        name = "linear_w4a16"
        checks.same_device(name, self.x, self.packed, self.weight_scale, self.bias)
        checks.floating(name, self.x)
        checks.packed_bytes(name, self.packed)
        checks.matrices(name, self.x, self.packed, packed=True)
        _check_outputs(name, self.packed.shape[0], self.weight_scale, self.bias)

    def shape(self) -> Tensor:
        """The result without values."""
        return self.x.new_empty((self.x.shape[0], self.packed.shape[0]))

    def reference(self) -> Tensor:
        """The result in plain torch."""
        with torch.autocast(self.x.device.type, enabled=False):
            values = _values(self.packed, self.weight_scale, self.x.shape[1])
            return F.linear(self.x.float(), values, self.bias).to(self.x.dtype)


def _check_outputs(name: str, outputs: int, weight_scale: Tensor, bias: Tensor | None) -> None:
    checks.float32(f"{name}: weight_scale", weight_scale, (outputs,))
    checks.float32(f"{name}: bias", bias, (outputs,))


def _values(packed: Tensor, weight_scale: Tensor, terms: int) -> Tensor:
    """The weight float32 (N, K) that packed codes and their scales stand for, with K = `terms`."""
    return unpack_rows(packed, terms).to(torch.float32).mul_(weight_scale.unsqueeze(1))


def _save_weight(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    del output
    x, packed, weight_scale, _ = inputs
    ctx.save_for_backward(packed, weight_scale)
    ctx.terms = x.shape[1]


def _linear_w4a16_gradient(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    dx = db = None
    if ctx.needs_input_grad[0]:
        packed, weight_scale = ctx.saved_tensors
        dx = (gradient.float() @ _values(packed, weight_scale, ctx.terms)).to(gradient.dtype)
    if ctx.needs_input_grad[3]:
        db = gradient.float().sum(0)
    return dx, None, None, db


linear_w8a8 = Operator(
    "linear_w8a8(Tensor codes, Tensor scale, Tensor weight, Tensor weight_scale, Tensor? bias, "
    "ScalarType dtype=float) -> Tensor",
    LinearW8A8,
    bias_gradient,
)
linear_w4a8 = Operator(
    "linear_w4a8(Tensor codes, Tensor scale, Tensor packed, Tensor weight_scale, Tensor? bias) -> Tensor",
    LinearW4A8,
    bias_gradient,
)
linear_w4a16 = Operator(
    "linear_w4a16(Tensor x, Tensor packed, Tensor weight_scale, Tensor? bias) -> Tensor",
    LinearW4A16,
    _linear_w4a16_gradient,
    _save_weight,
)
