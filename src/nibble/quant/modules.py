"""The quantized layers, and which float type becomes which."""

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nibble.errors import UserError
from nibble.quant.layer import QuantizedLayer, float_island, output_type
from nibble.quant.numerics import compute_type, dequantize, require_finite_input
from nibble.quant.products import Geometry, integer_conv2d, integer_linear
from nibble.quant.recurrence import float_recurrence, integer_recurrence, lstm_steps
from nibble.quant.spec import Range


class QuantLinear(QuantizedLayer, nn.Linear):
    """(..., K) -> (..., N)."""

    def forward(self, input: Tensor) -> Tensor:
        """input (..., K) -> (..., N)."""
        if self.in_float:
            return super().forward(input)
        return self.linear(input, self.product_weight(), self.bias)

    def of_codes(self, codes: Tensor, scale: Tensor) -> Tensor:
        """What a frozen layer makes of an input with codes int8 (..., K) and scale (..., 1): float32 (..., N)."""
        weight = self.product_weight()
        assert weight.integers is not None
        w_codes, w_scale, _ = weight.integers
        return integer_linear(codes, None, self.bias, codes, scale, w_codes, w_scale, torch.float32, weight.packed)


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
        weight = self.product_weight()
        if weight.integers is not None and self.activation_spec is not None:
            # Of the fake arithmetic on a GPU, too: torch has no convolution of bfloat16 that gives float32 sums.
            x, codes, scale = self.input_integers(x, whole)
            w_codes, w_scale = _as_2d(weight.integers.codes), _as_2d(weight.integers.scale)
            parameter = None if weight.parameter is None else _as_2d(weight.parameter)
            return integer_conv2d(x, parameter, self.bias, codes, scale, w_codes, w_scale, dtype, move)
        assert weight.values is not None
        values = _as_2d(weight.values)
        bias = None if self.bias is None else self.bias.to(values.dtype)
        with float_island(x):
            x = self.activation(x, whole)
            return F.conv2d(x, values, bias, move.stride, move.padding, move.dilation, move.groups).to(dtype)


class QuantConv1d(_QuantConv, nn.Conv1d):
    """(B, C, T) -> (B, N, T')."""


class QuantConv2d(_QuantConv, nn.Conv2d):
    """(B, C, H, W) -> (B, N, H', W')."""


class QuantEmbedding(QuantizedLayer, nn.Embedding):
    """Labels (...) -> rows (..., D), with one scale a row. It computes no product, so it has no activation."""

    takes_activation = False
    supported_options: ClassVar[dict[str, Any]] = {"max_norm": None, "sparse": False}

    def forward(self, input: Tensor) -> Tensor:
        """input (...) -> (..., D)."""
        if self.in_float:
            return super().forward(input)
        if self.blend == 1 and (self.frozen or not torch.is_grad_enabled()):
            codes, scale, _ = self.integers()
            return dequantize(codes[input], scale.expand(codes.shape[0], *scale.shape[1:])[input])
        return F.embedding(input, self.values(), self.padding_idx, scale_grad_by_freq=self.scale_grad_by_freq)


class QuantLSTM(QuantizedLayer, nn.LSTM):
    """One layer, one direction, batch first: (B, U, K) -> (B, U, N).

    The input's product is taken for all steps at once, the hidden state's step by step. The hidden state of a step
    has a dynamic scale of its own whatever the spec, since later steps are not known.
    """

    weight_names = ("weight_ih_l0", "weight_hh_l0")

    supported_options: ClassVar[dict[str, Any]] = {
        "num_layers": 1,
        "bidirectional": False,
        "proj_size": 0,
        "batch_first": True,
    }

    def forward(self, input: Tensor, hx: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """input (B, U, K), hx: hidden and cell (1, B, N) -> (B, U, N) and the last hidden and cell.

        Raises:
            UserError: input is a packed sequence.
        """
        if self.in_float:
            return super().forward(input, hx)  # type: ignore[has-type]
        if not isinstance(input, Tensor):
            raise UserError(f"{self.layer_name}: a quantized LSTM takes a padded (B, U, K) tensor, no packed sequence")
        if input.dim() == 2:
            state = None if hx is None else (hx[0].unsqueeze(1), hx[1].unsqueeze(1))
            out, (hidden, cell) = self.forward(input.unsqueeze(0), state)
            return out.squeeze(0), (hidden.squeeze(1), cell.squeeze(1))
        inside, dtype = compute_type(input), output_type(input)
        bias = torch.add(self.get_parameter("bias_ih_l0"), self.get_parameter("bias_hh_l0")) if self.bias else None
        from_input = self.linear(input, self.product_weight("weight_ih_l0"), bias, dtype=inside)
        if hx is None:
            hidden = cell = from_input.new_zeros(input.shape[0], self.hidden_size)
        else:
            hidden, cell = (part[0].to(inside) for part in hx)
        weight = self.product_weight("weight_hh_l0")
        with float_island(input):
            spec = self.activation_spec
            if weight.integers is not None and spec is not None and torch.is_grad_enabled():
                plain = (spec.bits, spec.range) == (8, Range.narrow)
                out, cell = integer_recurrence(
                    from_input,
                    hidden,
                    cell,
                    weight.parameter,
                    weight.integers,
                    lambda hidden: self.input_integers(hidden, (1,), dynamic=True)[1:],
                    (lambda scale: require_finite_input(scale, self.layer_name)) if plain else None,
                )
            elif weight.values is not None and torch.is_grad_enabled() and input.is_cuda:
                out, cell = float_recurrence(from_input, hidden, cell, weight.values.to(inside), self._represented)
            else:
                steps = lstm_steps(
                    from_input, hidden, cell, lambda x: self.linear(x, weight, None, dims=(1,), dtype=inside)
                )
                out, cell = torch.stack([step.hidden for step in steps], 1), steps[-1].cell
        out = out.to(dtype)
        return out, (out[:, -1].unsqueeze(0), cell.to(dtype).unsqueeze(0))

    def _represented(self, hidden: Tensor) -> Tensor:
        """The values that the codes of a hidden state (B, N) stand for, in its type."""
        if self.activation_spec is None:
            return hidden
        return dequantize(*self.input_integers(hidden, (1,), dynamic=True)[1:]).to(hidden.dtype)


QUANTIZED_TYPES: dict[type, type[QuantizedLayer]] = {
    nn.Linear: QuantLinear,
    nn.Conv1d: QuantConv1d,
    nn.Conv2d: QuantConv2d,
    nn.Embedding: QuantEmbedding,
    nn.LSTM: QuantLSTM,
}

_DERIVED_TYPES: dict[type, type[QuantizedLayer]] = {}  # made by `quantized_type`, so that each is made once

# Its product is a function call in nn.MultiheadAttention, which would not pass through a quantized forward.
_NEVER = (nn.modules.linear.NonDynamicallyQuantizableLinear,)


def quantized_type(float_type: type) -> type[QuantizedLayer] | None:
    """The type a module of `float_type` gets; None if there is none.

    A subclass of a known type counts as that type: its own forward runs in float, and must compute the same function
    as its base. The new type inherits from both.
    """
    if issubclass(float_type, (QuantizedLayer, *_NEVER)):
        return None
    for base in float_type.__mro__:
        if base in QUANTIZED_TYPES:
            quantized = QUANTIZED_TYPES[base]
            if base is float_type:
                return quantized
            if float_type not in _DERIVED_TYPES:
                name = f"Quant{float_type.__name__}"
                _DERIVED_TYPES[float_type] = type(name, (quantized, float_type), {})
            return _DERIVED_TYPES[float_type]
    return None


def _as_2d(tensor: Tensor) -> Tensor:
    """(N, C, k) -> (N, C, 1, k); four dimensions stay."""
    return tensor.unsqueeze(2) if tensor.dim() == 3 else tensor
