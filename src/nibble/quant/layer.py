"""The part that all quantized layers share: the precision they run at, and their weights."""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from nibble.errors import UserError
from nibble.kernels.nibbles import pack_rows
from nibble.parameter_cache import ParameterCache
from nibble.quant.analog import in_training, in_use
from nibble.quant.analog_spec import AnalogSpec
from nibble.quant.layer_input import QuantizesInput
from nibble.quant.numerics import compute_type, quantize_weight
from nibble.quant.precision import activation_spec_at, weight_spec_at
from nibble.quant.sparsity import n_m_mask
from nibble.quant.spec import ActivationSpec, Arithmetic, Precision, Rule, WeightSpec
from nibble.quant.tensor import Factor, QuantizedTensor
from nibble.quant.weight_source import (
    AnalogWeight,
    FakeWeight,
    FloatWeight,
    FrozenWeight,
    NativeWeight,
    NoisyWeight,
    Trained,
    WeightSource,
)


class QuantizedLayer(QuantizesInput):
    """Mixed into a float layer's type; `nibble.quant.convert.prepare` gives a float module such a type, in place.

    The parameters stay the same objects under the same names, so optimizers and float checkpoints fit before and
    after. At `Precision.float` the float layer's own forward runs.
    """

    weight_names: ClassVar[tuple[str, ...]] = ("weight",)
    takes_activation: ClassVar[bool] = True  # whether the layer computes a product
    supported_options: ClassVar[dict[str, Any]] = {}  # option of the float layer -> the only value that is supported

    rule: Rule = Rule()
    arithmetic: Arithmetic = Arithmetic.native
    precision: Precision = Precision.float
    blend: float = 1.0
    frozen: bool = False
    weight_spec: WeightSpec | None = None  # at the present precision
    analog_spec: AnalogSpec | None = None  # at the present precision
    draw: int = 0  # of the random numbers with which analog weights are programmed in evaluation

    def configure(self, name: str, rule: Rule, arithmetic: Arithmetic) -> None:
        """Take the layer's name, the rule that applies to it and the arithmetic; the layer starts in float."""
        self.layer_name = name
        self.rule = rule
        self.arithmetic = arithmetic
        self._cache = ParameterCache()
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
        """Run at `precision` from now on, with the weight (1 - blend) w + blend w~.

        Raises:
            UserError: the layer is frozen.
        """
        if self.frozen and (precision, blend) != (self.precision, 1.0):
            raise UserError(f"{self.layer_name} is frozen at precision {self.precision.value}; it cannot change")
        self.precision, self.blend = precision, blend
        self.weight_spec = weight_spec_at(precision, self.rule.weight)
        self.activation_spec = activation_spec_at(precision, self.rule.activation) if self.takes_activation else None
        self.analog_spec = self.rule.analog if precision is Precision.rules else None
        self._cache.clear()

    @property
    def weight_bits(self) -> int | None:
        """Bits of the weight's codes at the present precision; None where the weight is in float."""
        return None if self.weight_spec is None else self.weight_spec.bits

    @property
    def in_float(self) -> bool:
        """Whether nothing is quantized or pruned at the present precision, so that the float layer's forward runs."""
        quantized = (self.weight_spec, self.activation_spec, self.analog_spec) != (None, None, None)
        return self.precision is Precision.float or not (
            quantized or (self.rule.sparsity is not None and not self.frozen)
        )

    @property
    def on_grid(self) -> bool:
        """Whether both factors of a product are codes times scales: the weight is neither on a ramp nor noisy."""
        both = self.weight_spec is not None and self.activation_spec is not None
        return both and self.blend == 1 and not self.noisy

    @property
    def native(self) -> bool:
        """Whether products run on integers."""
        return self.on_grid and self.arithmetic is not Arithmetic.fake

    @property
    def takes_codes(self) -> bool:
        """Whether the layer is frozen and quantizes its input exactly as `ops.quantize_rows` does."""
        return self.frozen and self.native and self.activation_spec == ActivationSpec(8)

    @property
    def noisy(self) -> bool:
        """Whether weights have noise in place of rounding."""
        return self.training and self.arithmetic is Arithmetic.noise and not self.frozen

    def quantized_weight(self, name: str = "weight") -> QuantizedTensor:
        """A weight's codes, with scales in the type that is computed with.

        Raises:
            UserError: the weight has NaN, infinity or a magnitude that no float16 scale covers.
        """
        if self.frozen:
            return self._frozen_factor(name).quantized
        assert self.weight_spec is not None, f"{self.layer_name} is in float"
        return self._quantized(name, self._trained(name), self.weight_spec)

    def _quantized(self, name: str, trained: Trained, spec: WeightSpec) -> QuantizedTensor:
        """The codes of a weight that has a parameter, kept as long as the cache can tell that it is constant."""

        def quantize() -> QuantizedTensor:
            return quantize_weight(trained.pruned(), spec, f"{self.layer_name}.{name}", trained.log_scale)

        versioned = name in self._parameters and not self.training and not torch.is_grad_enabled()
        return self._cache.get((name, self.precision), quantize, trained.parameter if versioned else None)

    def _programmed(self, name: str, trained: Trained, spec: AnalogSpec) -> Tensor:
        """A weight as programmed: in training with new noise at each call, in evaluation with that of `draw`."""
        exact = trained.pruned().to(compute_type(trained.parameter))
        if self.training:
            return in_training(exact, spec)
        versioned = trained.parameter if name in self._parameters and not torch.is_grad_enabled() else None
        full = f"{self.layer_name}.{name}"
        return self._cache.get((name, "analog", self.draw), lambda: in_use(exact, spec, full, self.draw), versioned)

    def reprogram(self, draw: int) -> None:
        """Let analog weights be those of the chip `draw` in evaluation, and forget those of the one before."""
        self.draw = draw
        self._cache.clear()

    def keep_quantized(self, name: str, quantized: QuantizedTensor) -> None:
        """Take a weight's codes at the present precision, until the end of `constant_parameters`."""
        self._cache.put((name, self.precision), quantized)

    def weight_source(self, name: str = "weight") -> WeightSource:
        """A weight in the form in which the present arithmetic computes with it."""
        if self.frozen and self.weight_spec is not None:
            factor = self._frozen_factor(name)
            alone = self.activation_spec is None and factor.packed is not None
            return FrozenWeight(factor, alone or self._multiplies_codes(factor.quantized.codes))
        trained = self._trained(name)
        if self.analog_spec is not None:
            return AnalogWeight(trained, self._programmed(name, trained, self.analog_spec), self.blend)
        if self.weight_spec is None:
            return FloatWeight(trained)
        quantized = self._quantized(name, trained, self.weight_spec)
        if self._multiplies_codes(trained.parameter):
            return NativeWeight(trained, quantized, self.weight_spec.bits)
        if self.noisy:
            return NoisyWeight(trained, quantized, self.weight_spec, self.blend)
        return FakeWeight(trained, quantized, self.weight_spec.bits, self.blend)

    def _multiplies_codes(self, weight: Tensor) -> bool:
        """Whether a product takes codes: in native arithmetic, and on a GPU in fake arithmetic, too.

        There a product of codes in bfloat16, which holds every code, is exact, and about ten times as fast as one of
        values in float32. A CPU multiplies values.
        """
        return self.native or (self.on_grid and weight.is_cuda and weight.dtype != torch.float64)

    def _trained(self, name: str) -> Trained:
        """A weight's parameter with its mask, and with its learned scale at the precision of the rules."""
        learned = self.weight_spec is not None and self.weight_spec.learned
        log_scale = self._parameters[f"{name}_log_scale"] if learned else None
        return Trained(getattr(self, name), self._buffers.get(f"{name}_mask"), log_scale)

    def _frozen_factor(self, name: str) -> Factor:
        """A frozen weight with scales to compute with, and packed if a product may take it packed."""
        codes = self._buffers[f"{name}_codes"]
        assert codes is not None

        def make() -> Factor:
            scale, zero = self.get_buffer(f"{name}_scale").float(), self._buffers.get(f"{name}_zero")
            # With a zero point subtracted, codes may need five bits. What isn't kept is not worth packing.
            four_bits = (self.weight_bits or 8) <= 4 and zero is None
            matrix = codes.dim() == scale.dim() == 2 and self.takes_activation
            packs = four_bits and matrix and not codes.is_inference() and not codes.is_meta
            return Factor(QuantizedTensor(codes, scale, zero), packed=pack_rows(codes) if packs else None)

        return self._cache.get((name, "frozen"), make, codes)

    def prune(self) -> None:
        """Draw the masks of a rule with `sparsity` again; pruned weights have gradients and may come back."""
        if self.rule.sparsity is None or self.frozen:
            return
        for name in self.weight_names:
            self.get_buffer(f"{name}_mask").copy_(n_m_mask(getattr(self, name).detach(), self.rule.sparsity))
        self._cache.clear()

    def freeze_weights(self) -> None:
        """Keep each weight as codes, and drop the parameter; see `freeze_codes`.

        A layer whose weight is in float at the present precision keeps its parameter, with zeros where it is pruned.
        """
        if self.frozen or self.in_float:
            return
        if self.weight_spec is None:
            for name in self.weight_names if self.rule.sparsity is not None else ():
                getattr(self, name).data = self._trained(name).pruned()
                delattr(self, f"{name}_mask")
            self.frozen = True
            return
        self.freeze_codes({name: self.quantized_weight(name) for name in self.weight_names})

    def freeze_codes(self, found: dict[str, QuantizedTensor]) -> None:
        """Keep weights as these codes: buffers `<weight>_codes` int8, `_scale` float16 and, if any, `_zero` int8."""
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

    def frozen_weights(self) -> dict[str, QuantizedTensor]:
        """Weight name -> its codes, with scales in float16; empty if it has none."""
        if not self.frozen or self.weight_spec is None:
            return {}
        return {
            name: QuantizedTensor(
                self.get_buffer(f"{name}_codes"), self.get_buffer(f"{name}_scale"), self._buffers.get(f"{name}_zero")
            )
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
