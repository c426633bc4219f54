"""The recurrence of an LSTM whose weight is values, as on a ramp on a GPU, against autograd's."""

import pytest
import torch
from torch import Tensor

from nibble.quant.gradients import straight_through
from nibble.quant.recurrence import float_recurrence, lstm_steps


def rounded(hidden: Tensor) -> Tensor:
    return (8 * hidden).round() / 8


@pytest.mark.parametrize("sizes", [(3, 5, 4), (1, 1, 2), (2, 1, 3), (1, 4, 1)], ids=str)
def test_states_and_gradients_are_autograds(sizes: tuple[int, int, int]) -> None:
    batch, steps, units = sizes
    torch.manual_seed(0)
    shapes = [(batch, steps, 4 * units), (batch, units), (batch, units), (4 * units, units)]
    drawn = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    x, hidden, cell, weight = drawn
    found = float_recurrence(x, (hidden, cell), weight, rounded)
    made = lstm_steps(*drawn[:3], lambda hidden: straight_through(hidden, rounded(hidden.detach())) @ weight.t())
    expected = torch.stack([step.hidden for step in made], 1), made[-1].cell
    slopes = [torch.randn_like(x) for x in expected]
    for one, other in zip(
        (*found, *torch.autograd.grad(found, drawn, slopes)),
        (*expected, *torch.autograd.grad(expected, drawn, slopes)),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_a_frozen_weight_has_no_gradient_and_results_may_be_changed_in_place() -> None:
    x = torch.randn(2, 3, 8, requires_grad=True)
    zeros = torch.zeros(2, 2)
    hidden, cell = float_recurrence(x, (zeros, zeros), torch.randn(8, 2), rounded)
    (hidden.mul_(2).sum() + cell.add_(1).sum()).backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
