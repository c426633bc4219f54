"""The quantized forms of Linear, convolutions and Embedding."""

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nibble.quant.analog_product import tiled
from nibble.quant.convolution_product import Geometry, integer_conv2d
from nibble.quant.float_types import float_island, output_type
from nibble.quant.layer import QuantizedLayer
from nibble.quant.linear_product import integer_linear
from nibble.quant.row_product import MultipliesRows
from nibble.quant.tensor import Factor, QuantizedTensor


class QuantLinear(MultipliesRows, nn.Linear):
    """(..., K) -> (..., N)."""

    def forward(self, input: Tensor) -> Tensor:
        """input (..., K) -> (..., N)."""
        if self.in_float:
            return super().forward(input)
        return self.linear(input, self.weight_source().operand(), self.bias)

    def of_codes(self, codes: Tensor, scale: Tensor) -> Tensor:
        """The output float32 (..., N) of a frozen layer for an input with codes int8 (..., K) and scale (..., 1)."""
        weight = self.weight_source().operand()
        assert isinstance(weight, Factor)
        return integer_linear(Factor(QuantizedTensor(codes, scale)), weight, self.bias, torch.float32)


class _QuantConv(QuantizedLayer, nn.modules.conv._ConvNd):
    """A convolution over one or two dimensions, computed over two: a 1-D one has height 1.

    A convolution mixes rows, so its activation has one scale per utterance.
    """

    def forward(self, input: Tensor) -> Tensor:
        """input (B, C, T) or (B, C, H, W), or without B."""
        if self.in_float:
            out: Tensor = super().forward(input)
            return out
        dimensions = len(self.kernel_size)
        x = input if input.dim() == dimensions + 2 else input.unsqueeze(0)
        padding: tuple[int, ...] | str = self.padding
        if isinstance(padding, str) or self.padding_mode != "zeros":
            mode = "constant" if self.padding_mode == "zeros" else self.padding_mode
            x = F.pad(x, self._reversed_padding_repeated_twice, mode=mode)
            padding = (0,) * dimensions
        missing = (1,) * (2 - dimensions)
        geometry = Geometry(missing + self.stride, (0,) * len(missing) + padding, missing + self.dilation, self.groups)
        x = self._conv2d(x.unsqueeze(2) if missing else x, geometry)
        x = x.squeeze(2) if missing else x
        return x if input.dim() == dimensions + 2 else x.squeeze(0)

    def _conv2d(self, x: Tensor, move: Geometry) -> Tensor:
        """x (B, C, H, W) -> (B, N, H', W')."""
        if self.groups == self.in_channels > 1:
            x = x.contiguous(memory_format=torch.channels_last)  # some twenty times faster on CPU
        whole, dtype = (1, 2, 3), output_type(x)
        weight = self.weight_source().operand()
        if isinstance(weight, Factor):
            # The fake arithmetic on a GPU, too: torch has no convolution of bfloat16 that gives float32 sums.
            quantized = QuantizedTensor(_as_2d(weight.quantized.codes), _as_2d(weight.quantized.scale))
            source = None if weight.source is None else _as_2d(weight.source)
            given = self.quantized_input(x, whole)
            return integer_conv2d(given, Factor(quantized, source), self.bias, dtype, move)
        values = _as_2d(weight)
        bias = None if self.bias is None else self.bias.to(values.dtype)
        with float_island(x):
            x = self.input_values(x, whole)
            if self.analog_spec is None:
                return F.conv2d(x, values, bias, *move).to(dtype)
            outputs = tiled(x, values, self.analog_spec, whole, lambda x, part: F.conv2d(x, part, None, *move))
            return (outputs if bias is None else outputs + bias.view(-1, 1, 1)).to(dtype)


class QuantConv1d(_QuantConv, nn.Conv1d):
    """(B, C, T) -> (B, N, T')."""


class QuantConv2d(_QuantConv, nn.Conv2d):
    """(B, C, H, W) -> (B, N, H', W')."""


class QuantEmbedding(QuantizedLayer, nn.Embedding):
    """Labels (...) -> rows (..., D), with one scale for each row. Without a product, no activation is quantized."""

    takes_activation = False
    supported_options: ClassVar[dict[str, Any]] = {"max_norm": None, "sparse": False}

    def forward(self, input: Tensor) -> Tensor:
        """input (...) -> (..., D)."""
        if self.in_float:
            return super().forward(input)
        if self.blend == 1 and (self.frozen or not torch.is_grad_enabled()):
            codes, scale, _ = self.quantized_weight()
            of_rows = scale.expand(codes.shape[0], *scale.shape[1:])
            return QuantizedTensor(codes[input], of_rows[input]).dequantize()
        return F.embedding(
            input, self.weight_source().values(), self.padding_idx, scale_grad_by_freq=self.scale_grad_by_freq
        )


def _as_2d(tensor: Tensor) -> Tensor:
    """(N, C, k) -> (N, C, 1, k); four dimensions stay."""
    return tensor.unsqueeze(2) if tensor.dim() == 3 else tensor
