"""What every quantized layer has: its specs, the precision it runs at, and its weights as integers."""

from collections.abc import Hashable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from nibble import distributed
from nibble.errors import UserError
from nibble.kernels import ops
from nibble.kernels.nibbles import pack_rows
from nibble.parameter_cache import made_once
from nibble.quant.finite import require_finite
from nibble.quant.last_codes import codes_of
from nibble.quant.noise import with_noise
from nibble.quant.numerics import (
    Integers,
    activation_dims,
    compute_type,
    dequantize,
    inside_clip,
    learning_scale,
    quantize_activation,
    quantize_weight,
    straight_through,
)
from nibble.quant.products import integer_linear
from nibble.quant.sparsity import n_m_mask
from nibble.quant.spec import ActivationSpec, Arithmetic, Precision, Range, Rule, WeightSpec

STATIC_MOMENTUM = 0.05  # of the moving average of max|x|


class ProductWeight(NamedTuple):
    """A weight as one forward pass needs it: integers for the native arithmetic, else values with their gradient."""

    parameter: Tensor | None  # (N, ...) receives the gradient of the native product; None if frozen
    integers: Integers | None
    values: Tensor | None  # (N, ...) for a float product
    packed: Tensor | None = None  # of a frozen weight, two codes a byte, for `ops.linear_w4a8` and `linear_w4a16`


class _Cached(NamedTuple):
    parameter: Tensor  # or the codes of a frozen weight
    version: int
    address: int
    integers: Integers
    packed: Tensor | None = None


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
    scales_frozen: bool = False  # static activation scales stay as they are
    weight_spec: WeightSpec | None = None  # at the present precision
    activation_spec: ActivationSpec | None = None  # at the present precision

    @classmethod
    def unsupported(cls, module: nn.Module, rule: Rule) -> str | None:
        """Why this float module cannot be quantized as the rule says, or None if it can."""
        for option, value in cls.supported_options.items():
            if getattr(module, option) != value:
                return f"{option}={getattr(module, option)} (only {option}={value} is supported)"
        for name in cls.weight_names:
            weight: Tensor = getattr(module, name)
            inputs = weight[0].numel()
            if rule.weight is not None and (size := rule.weight.group_size) is not None:
                if weight.dim() != 2:
                    return f"group_size={size} (a convolution has one scale a channel: group_size=null)"
                if inputs % size:
                    divisor = _divisor(inputs, size)
                    return f"group_size={size}, which does not divide its K={inputs} (nearest that does: {divisor})"
            if rule.sparsity is not None and inputs % rule.sparsity.of:
                of, legal = rule.sparsity.of, [m for m in range(2, 17) if inputs % m == 0]
                nearest = min(legal, key=lambda m: abs(m - of)) if legal else "none: leave sparsity out"
                return f"sparsity of={of}, which does not divide its K={inputs} (nearest that does: {nearest})"
        return None

    def configure(self, name: str, rule: Rule, arithmetic: Arithmetic) -> None:
        """Take the rule that won this layer; the layer starts in float."""
        self.layer_name = name
        self.rule = rule
        self.arithmetic = arithmetic
        self._cache: dict[str, _Cached] = {}
        for weight_name in self.weight_names:
            weight: Tensor = getattr(self, weight_name)
            if rule.weight is not None and rule.weight.learned:
                scales = quantize_weight(weight, rule.weight, f"{name}.{weight_name}").scale.numel()
                start = torch.zeros(scales, device=weight.device)
                self.register_parameter(f"{weight_name}_log_scale", nn.Parameter(start))
            if rule.sparsity is not None:
                self.register_buffer(f"{weight_name}_mask", torch.ones_like(weight, dtype=torch.bool))
        if self.takes_activation and rule.activation is not None and rule.activation.static:
            self.register_buffer("activation_max", torch.zeros((), device=weight.device))

    def set_precision(self, precision: Precision, blend: float) -> None:
        """Run at `precision` from now on; the weight is (1 - blend) w + blend w~.

        Raises:
            UserError: the layer is frozen.
        """
        if self.frozen and (precision, blend) != (self.precision, 1.0):
            raise UserError(f"{self.layer_name} is frozen at precision {self.precision.value}; it cannot change")
        self.precision, self.blend = precision, blend
        self.weight_spec = _weight_at(precision, self.rule.weight)
        self.activation_spec = _activation_at(precision, self.rule.activation) if self.takes_activation else None
        self._cache.clear()

    @property
    def weight_bits(self) -> int | None:
        """Bits of the weight's codes at the present precision; None where the weight is in float."""
        return None if self.weight_spec is None else self.weight_spec.bits

    @property
    def in_float(self) -> bool:
        """Whether the float layer's own forward is to run: nothing is quantized or pruned at the present precision."""
        return self.precision is Precision.float or (
            self.weight_spec is None and self.activation_spec is None and (self.rule.sparsity is None or self.frozen)
        )

    @property
    def on_grid(self) -> bool:
        """Whether both factors of a product are codes times scales: the weight is not on a ramp or noisy."""
        both = self.weight_spec is not None and self.activation_spec is not None
        return both and self.blend == 1 and not self.noisy

    @property
    def native(self) -> bool:
        """Whether products run on integers."""
        return self.on_grid and self.arithmetic is not Arithmetic.fake

    @property
    def takes_codes(self) -> bool:
        """Whether it is frozen, and codes of `ops.quantize_rows` are those of its input."""
        return self.frozen and self.native and self.activation_spec == ActivationSpec(8)

    @property
    def noisy(self) -> bool:
        """Whether weights have noise in place of rounding."""
        return self.training and self.arithmetic is Arithmetic.noise and not self.frozen

    def integers(self, name: str = "weight") -> Integers:
        """A weight's codes, and its scales in the type computed with.

        Raises:
            UserError: the weight has NaN, infinity or a magnitude that no float16 scale covers.
        """
        if self.frozen:
            return self._thawed(name).integers
        assert self.weight_spec is not None, f"{self.layer_name} is in float"
        weight = getattr(self, name)
        # In decoding the same weights are used step after step. A weight that is computed anew at each access
        # (weight_norm) has no version to tell whether it changed.
        if self.training or torch.is_grad_enabled() or name not in self._parameters or weight.is_inference():
            return self._quantized(name)
        cached = self._cache.get(name)
        key = (weight._version, weight.data_ptr())
        if cached is None or cached.parameter is not weight or (cached.version, cached.address) != key:
            cached = _Cached(weight, *key, self._quantized(name))
            self._cache[name] = cached
        return cached.integers

    def _thawed(self, name: str) -> _Cached:
        """A frozen weight with scales to compute with, and packed if a product may take it so."""
        codes = self.get_buffer(f"{name}_codes")
        kept = not codes.is_inference() and not codes.is_meta  # else it has no version, or no values
        key = (codes._version, codes.data_ptr()) if kept else (0, 0)
        cached = self._cache.get(name)
        if kept and cached is not None and cached.parameter is codes and (cached.version, cached.address) == key:
            return cached
        scale, zero = self.get_buffer(f"{name}_scale").float(), self._buffers.get(f"{name}_zero")
        four_bits = (self.weight_bits or 8) <= 4 and zero is None  # less a zero point, codes may need five
        packs = kept and four_bits and codes.dim() == scale.dim() == 2 and self.takes_activation
        cached = _Cached(codes, *key, Integers(codes, scale, zero), pack_rows(codes) if packs else None)
        if kept:
            self._cache[name] = cached
        return cached

    def _quantized(self, name: str) -> Integers:
        spec = self.weight_spec
        assert spec is not None
        what = f"{self.layer_name}.{name}"
        return made_once(self._of(name), lambda: quantize_weight(self._pruned(name), spec, what, self._log_scale(name)))

    def keep(self, name: str, integers: Integers) -> None:
        """Take a weight's integers at the present precision, till `nibble.parameter_cache.steady_parameters` ends."""
        made_once(self._of(name), lambda: integers)

    def _of(self, name: str) -> Hashable:
        return self, name, self.precision  # a teacher may run it at another one within a step

    def _pruned(self, name: str) -> Tensor:
        """The weight with zeros where its mask says; without a gradient."""
        weight: Tensor = getattr(self, name).detach()
        mask = self._buffers.get(f"{name}_mask")
        return weight if mask is None else weight * mask

    def _log_scale(self, name: str) -> Tensor | None:
        """The parameter that a learned scale has at the precision of the rules."""
        learned = self.weight_spec is not None and self.weight_spec.learned
        return self._parameters[f"{name}_log_scale"] if learned else None

    def prune(self) -> None:
        """Draw the masks of a rule with `sparsity` anew, by magnitude; pruned weights have gradients and may return."""
        if self.rule.sparsity is None or self.frozen:
            return
        for name in self.weight_names:
            self.get_buffer(f"{name}_mask").copy_(n_m_mask(getattr(self, name).detach(), self.rule.sparsity))
        self._cache.clear()

    def values(self, name: str = "weight") -> Tensor:
        """The weight as its codes represent it, (1 - blend) w + blend w~ on a ramp; gradients go to the parameter."""
        if self.frozen and self.weight_spec is not None:
            return dequantize(*self.integers(name)[:2])
        weight: Tensor = getattr(self, name)
        if self.weight_spec is None:
            return straight_through(weight, self._pruned(name).to(compute_type(weight)))
        integers = self.integers(name)
        if self.noisy:
            return self._with_noise(name, integers)
        quantized = dequantize(integers.codes, integers.scale)
        if self.blend < 1:
            quantized = torch.lerp(weight.detach().to(quantized.dtype), quantized, self.blend)
        return straight_through(self._source(name, integers), quantized)

    def _with_noise(self, name: str, integers: Integers) -> Tensor:
        """The weight with noise in place of rounding, on a ramp a share of it; what is pruned stays zero."""
        assert self.weight_spec is not None
        weight: Tensor = getattr(self, name)
        source = straight_through(weight, self._pruned(name).to(integers.scale.dtype))
        noisy = with_noise(source, integers, self.weight_spec, self._log_scale(name))
        if (mask := self._buffers.get(f"{name}_mask")) is not None:
            noisy = torch.where(mask, noisy, source)
        return torch.lerp(source, noisy, self.blend)

    def _source(self, name: str, integers: Integers) -> Tensor:
        """The parameter, as that which the gradient of x~ goes to."""
        weight: Tensor = getattr(self, name)
        log_scale = self._log_scale(name)
        if log_scale is None or self.weight_spec is None:
            return weight
        return learning_scale(weight, log_scale, integers, self.weight_spec.bits)

    def product_weight(self, name: str = "weight") -> ProductWeight:
        """A weight as the present arithmetic needs it."""
        by_codes = self.native or (self.on_grid and self._multiplies_codes(name))
        if self.frozen and self.weight_spec is not None:
            thawed = self._thawed(name)
            if by_codes or (self.activation_spec is None and thawed.packed is not None):
                return ProductWeight(None, thawed.integers, None, thawed.packed)
        if by_codes:
            integers = self.integers(name)
            return ProductWeight(self._source(name, integers), integers, None)
        return ProductWeight(None, None, self.values(name))

    def _multiplies_codes(self, name: str) -> bool:
        """Whether the fake arithmetic multiplies codes and scales the sums, which is exact, as on a GPU.

        There float32 products take some ten times as long as those of bfloat16, which holds every code. On a CPU it
        multiplies values in float32.
        """
        weight: Tensor = self.get_buffer(f"{name}_codes") if self.frozen else getattr(self, name)
        return weight.is_cuda and weight.dtype != torch.float64

    def activation(self, x: Tensor, dims: tuple[int, ...], dynamic: bool = False) -> Tensor:
        """x as its codes represent it, with the gradient of x; see `input_integers`."""
        dtype = value_type(x)
        if self.activation_spec is None:
            return x.to(dtype)
        x, codes, scale = self.input_integers(x, dims, dynamic)
        return straight_through(x, dequantize(codes, scale, dtype))

    def input_integers(self, x: Tensor, dims: tuple[int, ...], dynamic: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        """x, and its codes and scales, one for each slice over `dims`; x as that which their gradient goes to.

        With a static spec there is one scale, of the moving average of max|x| over training, which `dynamic` leaves
        out.

        Raises:
            UserError: x has NaN or infinity, or a static scale was never calibrated.
        """
        spec = self.activation_spec
        assert spec is not None
        if not spec.static or dynamic:
            how = dims, spec.bits, spec.range
            return x, *codes_of(x, how, lambda: quantize_activation(x, dims, spec, self.layer_name))
        largest = self.get_buffer("activation_max")
        if self.training and x.numel() and not self.scales_frozen:
            self._follow(largest, x.detach())
        codes, scale = quantize_activation(x, dims, spec, self.layer_name, largest)
        require_finite(largest.reciprocal(), self._uncalibrated)
        return inside_clip(x, largest), codes, scale

    def _uncalibrated(self) -> str:
        return (
            f"{self.layer_name}: its static activation scale was never calibrated; train at this precision, "
            "or calibrate with python -m nibble.quantize"
        )

    @staticmethod
    def _follow(largest: Tensor, x: Tensor) -> None:
        """Move the average of max|x| over all processes; the first batch sets it."""
        now = distributed.largest(x.abs().amax().to(largest.dtype))
        largest.copy_(torch.where(largest == 0, now, largest.lerp(now, STATIC_MOMENTUM)))

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
            dims: dimensions of x that share a dynamic scale whatever the spec; None: as the spec says.
            dtype: of the result; None: what a float layer would give.
        """
        dtype = dtype or output_type(x)
        dynamic = dims is not None
        if dims is None:
            dims = (-1,) if self.activation_spec is None else activation_dims(self.activation_spec, x.dim())
        if self.activation_spec is None and weight.integers is not None and weight.packed is not None:
            outputs = len(weight.packed)
            kind = value_type(x) if x.is_cuda and x.dtype != torch.float64 else torch.float32
            rows, scale = x.to(kind).reshape(-1, x.shape[-1]), weight.integers.scale.view(-1).expand(outputs)
            return ops.linear_w4a16(rows, weight.packed, scale, bias).view(*x.shape[:-1], outputs).to(dtype)
        if weight.integers is None or self.activation_spec is None:
            assert weight.values is not None
            with float_island(x):
                x = self.activation(x, dims, dynamic)
                return F.linear(x, weight.values, _like(bias, weight.values)).to(dtype)
        x, codes, scale = self.input_integers(x, dims, dynamic)
        w_codes, w_scale, _ = weight.integers
        given = codes, scale, w_codes, w_scale
        return integer_linear(x, weight.parameter, bias, *given, dtype, weight.packed, in_float=not self.native)

    def freeze_weights(self) -> None:
        """Keep each weight as integers, and drop the parameter; see `freeze_codes`.

        A layer whose weight is in float at the present precision stays as it is, but for what is pruned.
        """
        if self.frozen or self.in_float:
            return
        if self.weight_spec is None:
            for name in self.weight_names if self.rule.sparsity is not None else ():
                getattr(self, name).data = self._pruned(name)
                delattr(self, f"{name}_mask")
            self.frozen = True
            return
        self.freeze_codes({name: self.integers(name) for name in self.weight_names})

    def freeze_codes(self, found: dict[str, Integers]) -> None:
        """Keep weights as these integers: buffers `<weight>_codes` int8, `_scale` float16 and, if any, `_zero` int8."""
        self.blend = 1.0
        if parametrize.is_parametrized(self):
            # weight_norm and the like made the weight a property of a type of their own, the second base of this one.
            del self.parametrizations
            self.__class__ = type(self).__bases__[0]
        for name, (codes, scale, zero) in found.items():
            setattr(self, name, None)
            for training_only in (f"{name}_log_scale", f"{name}_mask"):
                if hasattr(self, training_only):
                    delattr(self, training_only)
            self.register_buffer(f"{name}_codes", codes)
            self.register_buffer(f"{name}_scale", scale.to(torch.float16))
            if zero is not None:
                self.register_buffer(f"{name}_zero", zero)
        self.frozen = True
        self._cache.clear()

    def frozen_weights(self) -> dict[str, Integers]:
        """Weight name -> its integers, scales in float16; empty if there are none."""
        if not self.frozen or self.weight_spec is None:
            return {}
        return {
            name: Integers(*(self._buffers.get(f"{name}_{part}") for part in Integers._fields))  # type: ignore[arg-type]
            for name in self.weight_names
        }

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


def value_type(x: Tensor) -> torch.dtype:
    """The type in which the values that codes stand for are multiplied: float32; on a GPU under autocast its type.

    There float32 would take some ten times as long. It is used off the grid (a ramp, noise, a float activation), and
    bfloat16 rounds a value by a quarter of its int8 code's step at most, half of what the code does already.
    """
    return output_type(x) if x.is_cuda and torch.is_autocast_enabled("cuda") else compute_type(x)


def float_island(x: Tensor) -> AbstractContextManager[object]:
    """No autocast inside, but on a GPU: see `value_type`."""
    inside = torch.is_autocast_enabled(x.device.type) and not x.is_cuda
    return torch.autocast(x.device.type, enabled=False) if inside else nullcontext()


def _like(bias: Tensor | None, weight: Tensor) -> Tensor | None:
    return None if bias is None else bias.to(weight.dtype)


def _weight_at(precision: Precision, spec: WeightSpec | None) -> WeightSpec | None:
    """A weight's spec at a precision: none in float, as it is at rules, else with the bits and the scale of those."""
    if spec is None or precision is Precision.float:
        return None
    if precision is Precision.rules:
        return spec
    bits = int(precision.value.removeprefix("int"))
    symmetric = spec.symmetric or not 2 <= bits <= 7
    range_ = Range.narrow if bits == 1 else spec.range
    return replace(spec, bits=bits, scale=None, learned=False, symmetric=symmetric, range=range_)


def _activation_at(precision: Precision, spec: ActivationSpec | None) -> ActivationSpec | None:
    """An activation's spec at a precision."""
    if spec is None or precision is Precision.float:
        return None
    return replace(spec, bits=8) if precision is Precision.int8 else spec


def _divisor(number: int, near: int) -> int:
    """The divisor of `number` nearest to `near`."""
    return min((d for d in range(1, number + 1) if number % d == 0), key=lambda divisor: abs(divisor - near))
