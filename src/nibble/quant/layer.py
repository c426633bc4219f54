"""What every quantized layer has: its specs, the precision it runs at, and its weights as integers."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any, ClassVar, NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from nibble.errors import UserError
from nibble.quant.numerics import (
    activation_dims,
    compute_type,
    dequantize,
    quantize_activation,
    quantize_weight,
    straight_through,
)
from nibble.quant.products import integer_linear
from nibble.quant.spec import ActivationSpec, Arithmetic, Precision, Rule, WeightSpec

Spec = TypeVar("Spec", WeightSpec, ActivationSpec)


class ProductWeight(NamedTuple):
    """A weight as one forward pass needs it: integers for the native arithmetic, else values with their gradient."""

    parameter: Tensor | None  # (N, ...) receives the gradient of the native product; None if frozen
    integers: tuple[Tensor, Tensor] | None  # codes int8 (N, ...) and scales
    values: Tensor | None  # (N, ...) for a float product


class _Cached(NamedTuple):
    parameter: Tensor
    version: int
    address: int
    integers: tuple[Tensor, Tensor]


class QuantizedLayer(nn.Module):
    """Mixed into a float layer's type; `nibble.quant.convert.prepare` gives a float module such a type, in place.

    The parameters stay the same objects under the same names, so optimizers and float checkpoints fit before and
    after. At `Precision.float` the float layer's own forward runs.
    """

    weight_names: ClassVar[tuple[str, ...]] = ("weight",)
    takes_activation: ClassVar[bool] = True  # whether the layer computes a product
    supported_options: ClassVar[dict[str, Any]] = {}  # option of the float layer -> the only value that is supported

    layer_name: str = ""
    rule: Rule = Rule()
    arithmetic: Arithmetic = Arithmetic.native
    precision: Precision = Precision.float
    blend: float = 1.0
    frozen: bool = False
    weight_spec: WeightSpec | None = None  # at the present precision
    activation_spec: ActivationSpec | None = None  # at the present precision

    @classmethod
    def unsupported(cls, module: nn.Module) -> str | None:
        """Why this float module cannot be quantized, or None if it can."""
        for option, value in cls.supported_options.items():
            if getattr(module, option) != value:
                return f"{option}={getattr(module, option)} (only {option}={value} is supported)"
        return None

    def configure(self, name: str, rule: Rule, arithmetic: Arithmetic) -> None:
        """Take the rule that won this layer; the layer starts in float."""
        self.layer_name = name
        self.rule = rule
        self.arithmetic = arithmetic
        self._cache: dict[str, _Cached] = {}

    def set_precision(self, precision: Precision, blend: float) -> None:
        """Run at `precision` from now on; the weight is (1 - blend) w + blend w~.

        Raises:
            UserError: the layer is frozen.
        """
        if self.frozen and (precision, blend) != (self.precision, 1.0):
            raise UserError(f"{self.layer_name} is frozen at precision {self.precision.value}; it cannot change")
        self.precision, self.blend = precision, blend
        self.weight_spec = _at(precision, self.rule.weight)
        self.activation_spec = _at(precision, self.rule.activation) if self.takes_activation else None
        self._cache.clear()

    @property
    def weight_bits(self) -> int | None:
        """Bits of the weight's codes at the present precision; None where the weight is in float."""
        return None if self.weight_spec is None else self.weight_spec.bits

    @property
    def in_float(self) -> bool:
        """Whether nothing is quantized at the present precision."""
        return self.weight_spec is None and self.activation_spec is None

    @property
    def native(self) -> bool:
        """Whether products run on integers: both factors have them, and the weight is not on a ramp."""
        both = self.weight_spec is not None and self.activation_spec is not None
        return both and self.blend == 1 and self.arithmetic is Arithmetic.native

    def integers(self, name: str = "weight") -> tuple[Tensor, Tensor]:
        """Codes int8 (N, ...) and scales of a weight, scales in the type computed with.

        Raises:
            UserError: the weight has NaN, infinity or a magnitude that no float16 scale covers.
        """
        if self.frozen:
            return self.get_buffer(f"{name}_codes"), self.get_buffer(f"{name}_scale").float()
        assert self.weight_spec is not None, f"{self.layer_name} is in float"
        weight = getattr(self, name)
        # In decoding the same weights are used step after step. A weight that is computed anew at each access
        # (weight_norm) has no version to tell whether it changed.
        if self.training or torch.is_grad_enabled() or name not in self._parameters or weight.is_inference():
            return quantize_weight(weight, self.weight_spec, f"{self.layer_name}.{name}")
        cached = self._cache.get(name)
        key = (weight._version, weight.data_ptr())
        if cached is None or cached.parameter is not weight or (cached.version, cached.address) != key:
            cached = _Cached(weight, *key, quantize_weight(weight, self.weight_spec, f"{self.layer_name}.{name}"))
            self._cache[name] = cached
        return cached.integers

    def values(self, name: str = "weight") -> Tensor:
        """The weight as its codes represent it, (1 - blend) w + blend w~ on a ramp; gradients go to the parameter."""
        if self.frozen:
            return dequantize(*self.integers(name))
        weight: Tensor = getattr(self, name)
        if self.weight_spec is None:
            return weight.to(compute_type(weight))
        quantized = dequantize(*self.integers(name))
        if self.blend < 1:
            quantized = torch.lerp(weight.detach().to(quantized.dtype), quantized, self.blend)
        return straight_through(weight, quantized)

    def product_weight(self, name: str = "weight") -> ProductWeight:
        """A weight as the present arithmetic needs it."""
        if self.native:
            return ProductWeight(None if self.frozen else getattr(self, name), self.integers(name), None)
        return ProductWeight(None, None, self.values(name))

    def activation(self, x: Tensor, dims: tuple[int, ...]) -> Tensor:
        """x as its codes represent it, with the gradient of x; one scale for each slice over `dims`."""
        if self.activation_spec is None:
            return x.to(compute_type(x))
        codes, scale = quantize_activation(x, dims, self.activation_spec, self.layer_name)
        return straight_through(x, codes.mul_(scale))

    def linear(
        self,
        x: Tensor,
        weight: ProductWeight,
        bias: Tensor | None,
        dims: tuple[int, ...] | None = None,
        dtype: torch.dtype | None = None,
    ) -> Tensor:
        """x (..., K), weight (N, K) -> (..., N).

        Args:
            x: the activation.
            weight: of `product_weight`.
            bias: (N,) or None.
            dims: dimensions of x that share a scale; None: as the spec says.
            dtype: of the result; None: what a float layer would give.
        """
        dtype = dtype or output_type(x)
        if weight.integers is None or self.activation_spec is None:
            assert weight.values is not None
            dims = dims or ((-1,) if self.activation_spec is None else activation_dims(self.activation_spec, x.dim()))
            with float_island(x):
                return F.linear(self.activation(x, dims), weight.values, _like(bias, weight.values)).to(dtype)
        dims = dims or activation_dims(self.activation_spec, x.dim())
        codes, scale = quantize_activation(x, dims, self.activation_spec, self.layer_name)
        return integer_linear(x, weight.parameter, bias, codes.to(torch.int8), scale, *weight.integers, dtype)

    def freeze_weights(self) -> None:
        """Keep each weight as buffers `<weight>_codes` int8 and `<weight>_scale` float16, and drop the parameter.

        A layer whose weight is in float at the present precision stays as it is.
        """
        if self.weight_spec is None or self.frozen:
            return
        self.blend = 1.0
        found = {name: self.integers(name) for name in self.weight_names}
        if parametrize.is_parametrized(self):
            # weight_norm and the like made the weight a property of a type of their own, the second base of this one.
            del self.parametrizations
            self.__class__ = type(self).__bases__[0]
        for name, (codes, scale) in found.items():
            setattr(self, name, None)
            self.register_buffer(f"{name}_codes", codes)
            self.register_buffer(f"{name}_scale", scale.to(torch.float16))
        self.frozen = True
        self._cache.clear()

    def frozen_weights(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Weight name -> codes int8 (N, ...) and scales float16, (N, 1, ...) or (1, 1, ...); empty if not frozen."""
        if not self.frozen:
            return {}
        return {n: (self.get_buffer(f"{n}_codes"), self.get_buffer(f"{n}_scale")) for n in self.weight_names}

    def train(self, mode: bool = True) -> "QuantizedLayer":
        """As `nn.Module.train`."""
        if "_cache" in self.__dict__:
            self._cache.clear()
        return super().train(mode)

    def extra_repr(self) -> str:
        """The float layer's text, and how it is quantized."""
        weight = "float" if self.weight_spec is None else f"int{self.weight_spec.bits}"
        activation = "float" if self.activation_spec is None else f"int{self.activation_spec.bits}"
        return f"{super().extra_repr()}, weight={weight}, activation={activation}"


def output_type(x: Tensor) -> torch.dtype:
    """The type a float layer's result would have for x: under autocast its type, else that of x."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype


def float_island(x: Tensor) -> AbstractContextManager[object]:
    """No autocast inside: bfloat16 would round the values that the codes stand for."""
    kind = x.device.type
    return torch.autocast(kind, enabled=False) if torch.is_autocast_enabled(kind) else nullcontext()


def _like(bias: Tensor | None, weight: Tensor) -> Tensor | None:
    return None if bias is None else bias.to(weight.dtype)


def _at(precision: Precision, spec: Spec | None) -> Spec | None:
    """A spec at a precision: none in float, 8 bits at int8, and as it is at rules."""
    if spec is None or precision is Precision.float:
        return None
    return replace(spec, bits=8) if precision is Precision.int8 else spec
