"""The steps of an LSTM; on integers as one function, so that its weight is dequantized and gets its gradient once.

i, f, g, o = gates of (x_t + W h_{t-1})     c_t = f c_{t-1} + i g     h_t = o tanh c_t
"""

from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from nibble.kernels import implementations
from nibble.quant.numerics import Integers, dequantize
from nibble.quant.products import integer_linear


class Step(NamedTuple):
    """What a step computes, each (B, N)."""

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
        cell: likewise.
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
    hidden: Tensor,
    cell: Tensor,
    parameter: Tensor | None,
    weight: Integers,
    quantize: Callable[[Tensor], tuple[Tensor, Tensor]],
    check: Callable[[Tensor], None] | None = None,
) -> tuple[Tensor, Tensor]:
    """Hidden states (B, U, N) and the last cell (B, N), with the gradients of the values that codes stand for.

    Args:
        from_input: as `lstm_steps` takes it.
        hidden: likewise.
        cell: likewise.
        parameter: (4N, N), what the weight's codes were made from; receives the gradient. None if frozen.
        weight: (4N, N).
        quantize: hidden (B, N) -> its codes (B, N) and scales (B, 1).
        check: raises an error if one of these scales is not finite; None if codes are not int8 of the narrow range,
            which one kernel on a GPU makes for all steps.
    """
    kernel = None if check is None else _kernels(from_input, weight)
    states: tuple[Tensor, Tensor] = _Recurrence.apply(
        from_input, hidden, cell, parameter, weight.codes, weight.scale, quantize, check, kernel
    )
    return states


def float_recurrence(
    from_input: Tensor, hidden: Tensor, cell: Tensor, weight: Tensor, represented: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    """As `integer_recurrence`, with values in place of codes: for a weight on a ramp: fewer launches than autograd.

    Args:
        from_input: as `lstm_steps` takes it.
        hidden: likewise.
        cell: likewise.
        weight: (4N, N); receives the gradient.
        represented: hidden (B, N) -> the values that its codes stand for (B, N), through which gradients pass as
            through the identity.
    """
    states: tuple[Tensor, Tensor] = _FloatRecurrence.apply(from_input, hidden, cell, weight, represented)
    return states


def _kernels(from_input: Tensor, weight: Integers) -> ModuleType | None:
    """The kernels that take all steps at once; None where there are none for these tensors."""
    one_a_channel = weight.scale.dim() == weight.codes.dim()  # or one for all, but not one a group
    if not (from_input.is_cuda and from_input.dtype == torch.float32 and from_input.numel() and one_a_channel):
        return None
    return implementations.triton_kernels("recurrence")


class _Recurrence(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        from_input: Tensor,
        hidden: Tensor,
        cell: Tensor,
        parameter: Tensor | None,
        w_codes: Tensor,
        w_scale: Tensor,
        quantize: Callable[[Tensor], tuple[Tensor, Tensor]],
        check: Callable[[Tensor], None] | None,
        kernel: ModuleType | None,
    ) -> tuple[Tensor, Tensor]:
        ctx.parameter_type = None if parameter is None else parameter.dtype
        ctx.kernel = kernel
        if kernel is not None:
            made = kernel.forward(from_input, *quantize(hidden), cell, w_codes, _of_channels(w_scale, w_codes))
            assert check is not None
            check(made.scale)
            ctx.save_for_backward(w_codes, w_scale, *made.gates.unbind(2), made.cells, made.codes, made.scale)
            return made.hidden, made.cells[-1].clone()
        taken = []

        def product(hidden: Tensor) -> Tensor:
            codes, scale = quantize(hidden)
            taken.append((codes, scale))
            return integer_linear(hidden, None, None, codes, scale, w_codes, w_scale, from_input.dtype)

        steps = lstm_steps(from_input, hidden, cell, product)
        parts = [torch.stack(parts) for parts in (*zip(*steps, strict=True), *zip(*taken, strict=True))]
        cells = torch.cat((cell.unsqueeze(0), parts[4]))
        ctx.save_for_backward(w_codes, w_scale, *parts[:4], cells, *parts[6:])
        # Copies: a function's result that is a view may not be changed in place.
        return parts[5].transpose(0, 1).clone(memory_format=torch.contiguous_format), steps[-1].cell.clone()

    @staticmethod
    def backward(ctx: Any, by_hidden: Tensor, by_cell: Tensor) -> tuple[Tensor | None, ...]:
        w_codes, w_scale, update, forget, candidate, output, cells, codes, scale = ctx.saved_tensors
        slopes, through = _slopes(update, forget, candidate, output, cells)
        if ctx.kernel is not None:
            by_gates, carried, by_cell = ctx.kernel.backward(
                slopes, through, forget, by_hidden, by_cell, w_codes, _of_channels(w_scale, w_codes)
            )
        else:
            values = dequantize(w_codes, w_scale).to(by_hidden.dtype)
            by_gates, carried, by_cell = _back(slopes, through, forget, by_hidden, by_cell, values)
        by_gates = by_gates.flatten(2)
        dw = None
        if ctx.needs_input_grad[3]:
            hidden = dequantize(codes, scale).to(by_gates.dtype).flatten(0, 1)
            dw = (by_gates.flatten(0, 1).t() @ hidden).to(ctx.parameter_type)
        return by_gates.transpose(0, 1), carried, by_cell, dw, None, None, None, None, None


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
    """How each gate's input moves the cell or, the last, the hidden state (U, B, 4, N); how the cell moves that one.

    Args:
        update: of all steps (U, B, N), as are the next three.
        forget: likewise.
        candidate: likewise.
        output: likewise.
        cells: from that before the first step on, (U + 1, B, N).
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
    """Gradients by what the gates are made from (U, B, 4, N), by the first hidden state and by the first cell (B, N).

    Args:
        slopes: of `_slopes`, (U, B, 4, N).
        through: likewise, (U, B, N).
        forget: (U, B, N).
        by_hidden: (B, U, N)
        by_cell: by the last cell, (B, N).
        weight: (4N, N)
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


def _of_channels(scale: Tensor, codes: Tensor) -> Tensor:
    """A weight's scales (4N, 1) or (1, 1), one for each channel: (4N,)."""
    return scale.reshape(-1).expand(codes.shape[0])
