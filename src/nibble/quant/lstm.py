"""The quantized LSTM."""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from nibble.errors import UserError
from nibble.quant.float_types import float_island, output_type
from nibble.quant.numerics import compute_type, require_finite_input
from nibble.quant.recurrence import float_recurrence, integer_recurrence, lstm_steps
from nibble.quant.row_product import MultipliesRows
from nibble.quant.spec import Range
from nibble.quant.tensor import Factor


class QuantLSTM(MultipliesRows, nn.LSTM):
    """One layer, one direction, batch first: (B, U, K) -> (B, U, N).

    The input is multiplied for all steps at once, the hidden state step by step. The hidden state of each step has a
    dynamic scale of its own whatever the spec, since later steps are not known.
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
        from_input = self.linear(input, self.weight_source("weight_ih_l0").operand(), bias, dtype=inside)
        if hx is None:
            hidden = cell = from_input.new_zeros(input.shape[0], self.hidden_size)
        else:
            hidden, cell = (part[0].to(inside) for part in hx)
        weight = self.weight_source("weight_hh_l0").operand()
        with float_island(input):
            spec = self.activation_spec
            if isinstance(weight, Factor) and spec is not None and torch.is_grad_enabled():
                plain = (spec.bits, spec.range) == (8, Range.narrow)
                out, cell = integer_recurrence(
                    from_input,
                    (hidden, cell),
                    weight,
                    lambda hidden: self.quantized_input(hidden, (1,), dynamic=True).quantized,
                    (lambda scale: require_finite_input(scale, self.layer_name)) if plain else None,
                )
            elif isinstance(weight, Tensor) and torch.is_grad_enabled() and input.is_cuda and self.analog_spec is None:
                out, cell = float_recurrence(from_input, (hidden, cell), weight.to(inside), self._represented)
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
        return self.quantized_input(hidden, (1,), dynamic=True).quantized.dequantize().to(hidden.dtype)
