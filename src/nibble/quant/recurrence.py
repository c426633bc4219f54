"""The steps of an LSTM. On integers they are one autograd function, so that the weight is dequantized only once.

i, f, g, o = gates of (x_t + W h_{t-1})     c_t = f c_{t-1} + i g     h_t = o tanh c_t
"""

from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from nibble.kernels import implementations
from nibble.quant.linear_product import integer_linear
from nibble.quant.tensor import Factor, QuantizedTensor


class Step(NamedTuple):
    """The results of one step, each (B, N)."""

    update: Tensor  # i
    forget: Tensor  # f
    candidate: Tensor  # g
    output: Tensor  # o
    cell: Tensor
    hidden: Tensor


def lstm_steps(from_input: Tensor, hidden: Tensor, cell: Tensor, product: Callable[[Tensor], Tensor]) -> list[Step]:
    """All steps.

    Args:
        from_input: the input's part of the gates, i, f, g and o side by side, (B, U, 4N).
        hidden: before the first step, (B, N).
        cell: before the first step, (B, N).
        product: hidden (B, N) -> its part of the gates, (B, 4N).
    """
    steps = []
    for gates in from_input.unbind(1):
        update, forget, candidate, output = (gates + product(hidden)).chunk(4, 1)
        update, forget, candidate, output = update.sigmoid(), forget.sigmoid(), candidate.tanh(), output.sigmoid()
        cell = forget * cell + update * candidate
        hidden = output * cell.tanh()
        steps.append(Step(update, forget, candidate, output, cell, hidden))
    return steps


def integer_recurrence(
    from_input: Tensor,
    state: tuple[Tensor, Tensor],
    weight: Factor,
    quantize: Callable[[Tensor], QuantizedTensor],
    check: Callable[[Tensor], None] | None = None,
) -> tuple[Tensor, Tensor]:
    """Hidden states (B, U, N) and the last cell (B, N), with the gradients of the values that codes stand for.

    Args:
        from_input: the input's part of the gates, as in `lstm_steps`.
        state: the hidden state and the cell before the first step, (B, N) each.
        weight: codes (4N, N).
        quantize: hidden (B, N) -> codes (B, N) and scales (B, 1).
        check: raises an error if one of these scales is not finite. None if the codes are not int8 of the narrow
            range; if they are, one kernel on a GPU makes them for all steps.
    """
    kernel = None if check is None else _kernels(from_input, weight.quantized)
    how = _OnCodes(weight.quantized, quantize, check, kernel)
    states: tuple[Tensor, Tensor] = _Recurrence.apply(from_input, *state, weight.source, how)
    return states


def float_recurrence(
    from_input: Tensor, state: tuple[Tensor, Tensor], weight: Tensor, represented: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    """As `integer_recurrence` with values in place of codes, for a weight on a ramp. Fewer launches than autograd.

    Args:
        from_input: the input's part of the gates, as in `lstm_steps`.
        state: the hidden state and the cell before the first step, (B, N) each.
        weight: (4N, N); receives the gradient.
        represented: hidden (B, N) -> the values that its codes stand for (B, N). Gradients pass through it unchanged.
    """
    states: tuple[Tensor, Tensor] = _FloatRecurrence.apply(from_input, *state, weight, represented)
    return states


class _OnCodes(NamedTuple):
    """How the hidden states are multiplied."""

    weight: QuantizedTensor
    quantize: Callable[[Tensor], QuantizedTensor]
    check: Callable[[Tensor], None] | None
    kernel: ModuleType | None


def _kernels(from_input: Tensor, weight: QuantizedTensor) -> ModuleType | None:
    """The kernels that compute all steps at once; None where these tensors have none."""
    if not (from_input.is_cuda and from_input.dtype == torch.float32 and from_input.numel()) or weight.grouped:
        return None
    return implementations.triton_kernels("recurrence")


class _Recurrence(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, from_input: Tensor, hidden: Tensor, cell: Tensor, parameter: Tensor | None, how: _OnCodes
    ) -> tuple[Tensor, Tensor]:
        ctx.parameter_type = None if parameter is None else parameter.dtype
        ctx.kernel = how.kernel
        weight = how.weight
        if how.kernel is not None:
            codes, scale, _ = how.quantize(hidden)
            made = how.kernel.forward(from_input, codes, scale, cell, (weight.codes, weight.channel_scale()))
            assert how.check is not None
            how.check(made.scale)
            ctx.save_for_backward(*weight[:2], *made.gates.unbind(2), made.cells, made.codes, made.scale)
            return made.hidden, made.cells[-1].clone()
        taken: list[QuantizedTensor] = []

        def product(hidden: Tensor) -> Tensor:
            taken.append(how.quantize(hidden))
            return integer_linear(Factor(taken[-1]), Factor(weight), None, from_input.dtype)

        steps = lstm_steps(from_input, hidden, cell, product)
        gates = [torch.stack(parts) for parts in list(zip(*steps, strict=True))[:4]]
        cells = torch.stack([cell, *(step.cell for step in steps)])
        codes, scale = (torch.stack([getattr(one, part) for one in taken]) for part in ("codes", "scale"))
        ctx.save_for_backward(*weight[:2], *gates, cells, codes, scale)
        # A copy: a function's result that is a view may not be changed in place.
        return torch.stack([step.hidden for step in steps], 1), steps[-1].cell.clone()

    @staticmethod
    def backward(ctx: Any, by_hidden: Tensor, by_cell: Tensor) -> tuple[Tensor | None, ...]:
        w_codes, w_scale, update, forget, candidate, output, cells, codes, scale = ctx.saved_tensors
        weight = QuantizedTensor(w_codes, w_scale)
        slopes, through = _slopes(update, forget, candidate, output, cells)
        if ctx.kernel is not None:
            by_gates, carried, by_cell = ctx.kernel.backward(
                slopes, through, forget, by_hidden, by_cell, (w_codes, weight.channel_scale())
            )
        else:
            values = weight.dequantize().to(by_hidden.dtype)
            by_gates, carried, by_cell = _back(slopes, through, forget, by_hidden, by_cell, values)
        by_gates = by_gates.flatten(2)
        dw = None
        if ctx.needs_input_grad[3]:
            hidden = QuantizedTensor(codes, scale).dequantize().to(by_gates.dtype).flatten(0, 1)
            dw = (by_gates.flatten(0, 1).t() @ hidden).to(ctx.parameter_type)
        return by_gates.transpose(0, 1), carried, by_cell, dw, None


class _FloatRecurrence(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        from_input: Tensor,
        hidden: Tensor,
        cell: Tensor,
        weight: Tensor,
        represented: Callable[[Tensor], Tensor],
    ) -> tuple[Tensor, Tensor]:
        batch, count, _ = from_input.shape
        gates = from_input.new_empty((count, batch, 4, cell.shape[1]))
        cells, states, taken = [cell], [], []
        with torch.autocast(from_input.device.type, enabled=False):
            for t, own in enumerate(from_input.unbind(1)):
                taken.append(represented(hidden))
                now = torch.addmm(own, taken[-1], weight.t()).view_as(gates[t])
                update, forget, candidate, output = gates[t].unbind(1)
                torch.sigmoid(now, out=gates[t])  # the candidate too: launches cost more than it does
                torch.tanh(now[:, 2], out=candidate)
                cells.append(torch.addcmul(forget * cells[-1], update, candidate))
                hidden = output * cells[-1].tanh()
                states.append(hidden)
        ctx.save_for_backward(weight, gates, torch.stack(cells), torch.stack(taken))
        return torch.stack(states, 1), cells[-1].clone()

    @staticmethod
    def backward(ctx: Any, by_hidden: Tensor, by_cell: Tensor) -> tuple[Tensor | None, ...]:
        weight, gates, cells, taken = ctx.saved_tensors
        update, forget, candidate, output = gates.unbind(2)
        slopes, through = _slopes(update, forget, candidate, output, cells)
        by_gates, carried, by_cell = _back(slopes, through, forget, by_hidden, by_cell, weight)
        by_gates = by_gates.flatten(2)
        dw = by_gates.flatten(0, 1).t() @ taken.flatten(0, 1) if ctx.needs_input_grad[3] else None
        return by_gates.transpose(0, 1), carried, by_cell, dw, None


def _slopes(update: Tensor, forget: Tensor, candidate: Tensor, output: Tensor, cells: Tensor) -> tuple[Tensor, Tensor]:
    """Derivatives within a step: by each gate's input (U, B, 4, N), and of the hidden state by the cell (U, B, N).

    The first three gates move the cell, the last one the hidden state.

    Args:
        update: i of all steps, (U, B, N).
        forget: f, (U, B, N).
        candidate: g, (U, B, N).
        output: o, (U, B, N).
        cells: (U + 1, B, N), the first one from before the first step.
    """
    before, squashed = cells[:-1], cells[1:].tanh()
    slopes = torch.stack(
        (
            candidate * update * (1 - update),
            before * forget * (1 - forget),
            update * (1 - candidate.square()),
            squashed * output * (1 - output),
        ),
        2,
    )
    return slopes, output * (1 - squashed.square())


def _back(
    slopes: Tensor, through: Tensor, forget: Tensor, by_hidden: Tensor, by_cell: Tensor, weight: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients with respect to the gates' inputs (U, B, 4, N), the first hidden state and the first cell (B, N).

    Args:
        slopes: of `_slopes`, (U, B, 4, N).
        through: of `_slopes`, (U, B, N).
        forget: f of all steps, (U, B, N).
        by_hidden: the gradient by the hidden states, (B, U, N).
        by_cell: the gradient by the last cell, (B, N).
        weight: (4N, N).
    """
    by_gates = torch.empty_like(slopes)
    carried = torch.zeros_like(through[0])
    for t in reversed(range(len(slopes))):
        carried = carried + by_hidden[:, t]
        by_cell = torch.addcmul(by_cell, carried, through[t])
        torch.mul(slopes[t, :, :3], by_cell.unsqueeze(1), out=by_gates[t, :, :3])
        torch.mul(slopes[t, :, 3], carried, out=by_gates[t, :, 3])
        by_cell = by_cell * forget[t]
        carried = by_gates[t].flatten(1) @ weight
    return by_gates, carried, by_cell
