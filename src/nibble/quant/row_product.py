"""The product of the rows of an activation and a weight, as `nn.Linear` and `nn.LSTM` need it."""

import torch
import torch.nn.functional as F
from torch import Tensor

from nibble.kernels import ops
from nibble.quant.analog_product import tiled
from nibble.quant.float_types import float_island, output_type, value_type
from nibble.quant.layer import QuantizedLayer
from nibble.quant.linear_product import integer_linear
from nibble.quant.numerics import activation_dims
from nibble.quant.tensor import Factor


class MultipliesRows(QuantizedLayer):
    """A quantized layer whose product is a linear one."""

    def linear(
        self,
        x: Tensor,
        weight: Factor | Tensor,
        bias: Tensor | None,
        dims: tuple[int, ...] | None = None,
        dtype: torch.dtype | None = None,
    ) -> Tensor:
        """x (..., K), weight (N, K) -> (..., N).

        Args:
            x: the activation.
            weight: the operand of a `WeightSource`.
            bias: (N,) or None.
            dims: dimensions of x that share a dynamic scale whatever the spec; None: as the spec says.
            dtype: of the result; None: what a float layer would give.
        """
        dtype = dtype or output_type(x)
        dynamic = dims is not None
        if dims is None:
            dims = (-1,) if self.activation_spec is None else activation_dims(self.activation_spec, x.dim())
        if isinstance(weight, Tensor):
            with float_island(x):
                bias = None if bias is None else bias.to(weight.dtype)
                values = self.input_values(x, dims, dynamic)
                if self.analog_spec is None:
                    return F.linear(values, weight, bias).to(dtype)
                outputs = tiled(values, weight, self.analog_spec, (-1,), F.linear)
                return (outputs if bias is None else outputs + bias).to(dtype)
        if self.activation_spec is None:
            return _weights_alone(x, weight, bias).to(dtype)
        return integer_linear(self.quantized_input(x, dims, dynamic), weight, bias, dtype, in_float=not self.native)


def _weights_alone(x: Tensor, weight: Factor, bias: Tensor | None) -> Tensor:
    """Float x (..., K) times a frozen weight of up to 4 bits: (..., N)."""
    assert weight.packed is not None
    outputs, scale = len(weight.packed), weight.quantized.channel_scale()
    kind = value_type(x) if x.is_cuda and x.dtype != torch.float64 else torch.float32
    rows = x.to(kind).reshape(-1, x.shape[-1])
    return ops.linear_w4a16(rows, weight.packed, scale, bias).view(*x.shape[:-1], outputs)
