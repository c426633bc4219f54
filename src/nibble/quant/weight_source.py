"""A layer's weight in the form in which the present arithmetic computes with it.

float    the parameter, pruned if the rule says so
fake     the values that its codes stand for; on a ramp, part of the way there from the parameter
native   its codes
noise    the parameter with noise in place of rounding
analog   the parameter as it was programmed into an analog memory, with its noise
frozen   codes that have no parameter any more
"""

from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from nibble.quant.gradients import learning_scale, straight_through
from nibble.quant.noise import with_noise
from nibble.quant.numerics import compute_type
from nibble.quant.spec import WeightSpec
from nibble.quant.tensor import Factor, QuantizedTensor


class WeightSource(Protocol):
    """The form of a parameter (N, ...) that a layer computes with.

    The contract:
    - `values` has the parameter's shape, and is float32, or float64 for a float64 parameter.
    - `operand` is what a product multiplies: the same values, or a `Factor` whose codes stand for them.
    - Gradients of both pass to the parameter unchanged (straight-through). A learned scale takes its share, noise
      also reaches the parameter through the scale, and a frozen weight has no gradient.
    - Pruned weights are 0 in both, and still receive their gradient.
    """

    def values(self) -> Tensor:
        """The values that the layer computes with."""
        ...

    def operand(self) -> Factor | Tensor:
        """What a product multiplies: codes, or values for a product of floats."""
        ...


class Trained(NamedTuple):
    """A weight that is still a parameter, with its mask and learned scale."""

    parameter: Tensor
    mask: Tensor | None = None  # False where it is pruned
    log_scale: Tensor | None = None  # the parameter of a learned scale

    def pruned(self) -> Tensor:
        """The parameter with zeros where it is pruned; without a gradient."""
        weight = self.parameter.detach()
        return weight if self.mask is None else weight * self.mask


class FloatWeight(NamedTuple):
    """A weight that is not quantized."""

    trained: Trained

    def values(self) -> Tensor:
        """See `WeightSource`."""
        pruned = self.trained.pruned()
        return straight_through(self.trained.parameter, pruned.to(compute_type(pruned)))

    def operand(self) -> Factor | Tensor:
        """See `WeightSource`."""
        return self.values()


class FakeWeight(NamedTuple):
    """The values that codes stand for; on a ramp (1 - blend) w + blend w~."""

    trained: Trained
    quantized: QuantizedTensor
    bits: int
    blend: float = 1.0

    def values(self) -> Tensor:
        """See `WeightSource`."""
        values = self.quantized.dequantize()
        if self.blend < 1:
            values = torch.lerp(self.trained.parameter.detach().to(values.dtype), values, self.blend)
        return straight_through(self.source(), values)

    def operand(self) -> Factor | Tensor:
        """See `WeightSource`."""
        return self.values()

    def source(self) -> Tensor:
        """The tensor that receives the gradient: the parameter, by way of its learned scale if it has one."""
        if self.trained.log_scale is None:
            return self.trained.parameter
        return learning_scale(self.trained.parameter, self.trained.log_scale, self.quantized, self.bits)


class NativeWeight(FakeWeight):
    """Codes, which a product multiplies as they are."""

    def operand(self) -> Factor | Tensor:
        """See `WeightSource`."""
        return Factor(self.quantized, self.source())


class NoisyWeight(NamedTuple):
    """The parameter with noise in place of rounding; on a ramp a share of the noise."""

    trained: Trained
    quantized: QuantizedTensor
    spec: WeightSpec
    blend: float = 1.0

    def values(self) -> Tensor:
        """See `WeightSource`; each call draws new noise."""
        trained = self.trained
        source = straight_through(trained.parameter, trained.pruned().to(self.quantized.scale.dtype))
        noisy = with_noise(source, self.quantized, self.spec, trained.log_scale)
        if trained.mask is not None:
            noisy = torch.where(trained.mask, noisy, source)
        return torch.lerp(source, noisy, self.blend)

    def operand(self) -> Factor | Tensor:
        """See `WeightSource`."""
        return self.values()


class AnalogWeight(NamedTuple):
    """The conductances of an analog memory, in the weight's unit; on a ramp a share of their error."""

    trained: Trained
    programmed: Tensor
    blend: float = 1.0

    def values(self) -> Tensor:
        """See `WeightSource`."""
        exact = self.trained.pruned().to(self.programmed.dtype)
        return straight_through(self.trained.parameter, torch.lerp(exact, self.programmed, self.blend))

    def operand(self) -> Factor | Tensor:
        """See `WeightSource`."""
        return self.values()


class FrozenWeight(NamedTuple):
    """Codes alone."""

    factor: Factor
    multiplies_codes: bool  # whether a product takes the codes, not the values

    def values(self) -> Tensor:
        """See `WeightSource`."""
        return self.factor.quantized.dequantize()

    def operand(self) -> Factor | Tensor:
        """See `WeightSource`."""
        return self.factor if self.multiplies_codes else self.values()
