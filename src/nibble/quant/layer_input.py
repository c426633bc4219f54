"""How a quantized layer quantizes its input: with scales of the input itself, or with a static one."""

import torch
from torch import Tensor, nn

from nibble import distributed
from nibble.quant.finite import require_finite
from nibble.quant.float_types import value_type
from nibble.quant.gradients import inside_clip, straight_through
from nibble.quant.last_codes import codes_of
from nibble.quant.numerics import quantize_activation
from nibble.quant.spec import ActivationSpec
from nibble.quant.tensor import Factor

STATIC_MOMENTUM = 0.05  # of the moving average of max|x|


class QuantizesInput(nn.Module):
    """The part of a quantized layer that its input needs.

    A static scale is one for the whole layer: that of the moving average of max|x| over training, in the buffer
    `activation_max`, which `configure` of the layer registers.
    """

    layer_name: str = ""
    activation_spec: ActivationSpec | None = None  # at the present precision
    scales_frozen: bool = False  # static scales stay as they are

    def quantized_input(self, x: Tensor, dims: tuple[int, ...], dynamic: bool = False) -> Factor:
        """The codes of x, and the tensor that receives their gradient.

        Args:
            x: the activation.
            dims: the dimensions of x that share a scale; with a static spec all do.
            dynamic: take the scales of x itself, even with a static spec.

        Raises:
            UserError: x has NaN or infinity, or a static scale was never calibrated.
        """
        spec = self.activation_spec
        assert spec is not None
        if not spec.static or dynamic:
            how = dims, spec.bits, spec.range
            return Factor(codes_of(x, how, lambda: quantize_activation(x, dims, spec, self.layer_name)), x)
        largest = self.get_buffer("activation_max")
        if self.training and x.numel() and not self.scales_frozen:
            _follow(largest, x.detach())
        quantized = quantize_activation(x, dims, spec, self.layer_name, largest)
        require_finite(largest.reciprocal(), self._uncalibrated)
        return Factor(quantized, inside_clip(x, largest))

    def input_values(self, x: Tensor, dims: tuple[int, ...], dynamic: bool = False) -> Tensor:
        """The values that the codes of x stand for, with the gradient of x; x itself if it stays in float.

        See `quantized_input`.
        """
        dtype = value_type(x)
        if self.activation_spec is None:
            return x.to(dtype)
        quantized, source, _ = self.quantized_input(x, dims, dynamic)
        assert source is not None
        return straight_through(source, quantized.dequantize(dtype))

    def _uncalibrated(self) -> str:
        return (
            f"{self.layer_name}: its static activation scale was never calibrated; train at this precision, "
            "or calibrate with python -m nibble.quantize"
        )


def _follow(largest: Tensor, x: Tensor) -> None:
    """Move the average of max|x| over all processes; the first batch sets it."""
    now = distributed.largest(x.abs().amax().to(largest.dtype))
    largest.copy_(torch.where(largest == 0, now, largest.lerp(now, STATIC_MOMENTUM)))
