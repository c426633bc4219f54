"""The LSTM's recurrence in one kernel each way, against the loop of torch's operators.

What they compile to is a test of the launch trace, tests/gpu_trace.
"""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("triton", reason="Triton is not installed")

from nibble.errors import UserError
from nibble.kernels import implementations, ops
from nibble.kernels.triton import recurrence as kernels
from nibble.quant import recurrence
from nibble.quant.convert import prepare, set_precision
from nibble.quant.spec import ActivationSpec, Precision, QuantConfig, Range, Rule, WeightSpec
from nibble.quant.tensor import Factor, QuantizedTensor

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
quantize_rows = ops.quantize_rows.reference
SIZES = [(3, 4, 5), (17, 2, 66), (1, 1, 64), (2, 3, 1)]  # sequences, steps, units


def draw(batch: int, steps: int, units: int, one_scale: bool = False) -> tuple[list[Tensor], QuantizedTensor]:
    """The input's part of the gates, hidden state, cell and a parameter with its integers."""
    generator = torch.Generator().manual_seed(batch + units)
    shapes = [(batch, steps, 4 * units), (batch, units), (batch, units), (4 * units, units)]
    drawn = [torch.randn(shape, generator=generator).to(DEVICE) for shape in shapes]
    codes = torch.randint(-7, 8, shapes[3], generator=generator, dtype=torch.int8).to(DEVICE)
    scale = torch.rand(1 if one_scale else 4 * units, 1, generator=generator).to(DEVICE) / 10
    return [x.requires_grad_() for x in drawn], QuantizedTensor(codes, scale)


def found_by(
    monkeypatch: pytest.MonkeyPatch, in_kernels: bool, drawn: list[Tensor], weight: QuantizedTensor
) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Hidden states and the last cell, gradients by all that was drawn, and the scales that are checked."""
    checked: list[Tensor] = []
    monkeypatch.setattr(recurrence, "_kernels", lambda *given: kernels if in_kernels else None)
    with np.errstate(all="ignore"):
        x, hidden, cell, parameter = drawn
        quantize = lambda hidden: QuantizedTensor(*quantize_rows(hidden))  # noqa: E731
        factor = Factor(weight, parameter)
        out = recurrence.integer_recurrence(x, (hidden, cell), factor, quantize, checked.append)
        slopes = [torch.linspace(-1, 1, x.numel(), device=DEVICE).view(x.shape) for x in out]
        gradients = torch.autograd.grad(out, drawn, slopes)
    return [x.detach() for x in out], list(gradients), checked


@pytest.mark.parametrize("one_scale", [False, True])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_states_and_gradients_are_those_of_the_loop(
    monkeypatch: pytest.MonkeyPatch, sizes: tuple[int, int, int], one_scale: bool
) -> None:
    drawn, weight = draw(*sizes, one_scale)
    out, gradients, checked = found_by(monkeypatch, True, drawn, weight)
    want, slopes, _ = found_by(monkeypatch, False, drawn, weight)
    # A state that rounds differently may get the next code, which moves a gate by one step: scale x weight.
    for found, expected in zip(out, want, strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=0.01)
        assert (found - expected).abs().median() < 1e-6
    for found, expected in zip(gradients, slopes, strict=True):
        torch.testing.assert_close(found, expected, rtol=0.02, atol=0.02 * float(expected.abs().max()))
        assert (found - expected).abs().median() <= 1e-5 * expected.abs().max()
    assert [scale.shape for scale in checked] == [(sizes[1], sizes[0], 1)]
    assert checked[0].isfinite().all()


def test_the_first_step_is_exact() -> None:
    """Sums are integers: whatever their size, a gate differs in the last bits of sigmoid and tanh alone."""
    drawn, weight = draw(2, 1, 300)
    x, hidden, cell, _ = (one.detach() for one in drawn)
    codes, scale = quantize_rows(hidden)
    weight.codes.fill_(127)
    with np.errstate(all="ignore"):
        made = kernels.forward(x, codes, scale, cell, (weight.codes, weight.scale.view(-1)))
    sums = (codes.double() @ weight.codes.double().t()).float()
    gates = (x[:, 0] + (sums * scale) * weight.scale.view(-1)).view(2, 4, 300)
    want = torch.cat((gates[:, :2].sigmoid(), gates[:, 2:3].tanh(), gates[:, 3:].sigmoid()), 1)
    torch.testing.assert_close(made.gates[0], want, rtol=1e-6, atol=1e-7)
    assert torch.equal(made.codes[0], codes)


def test_small_states_keep_their_digits() -> None:
    """tanh near zero: 1 - e^-2x would leave three digits at 1e-4."""
    x = torch.zeros(1, 1, 256, device=DEVICE)
    values = torch.logspace(-6, 1, 64, device=DEVICE)
    x[0, 0, 128:192] = values
    zeros = torch.zeros(1, 64, device=DEVICE)
    nothing = torch.zeros(256, 64, dtype=torch.int8, device=DEVICE)
    with np.errstate(all="ignore"):
        made = kernels.forward(
            x, zeros.to(torch.int8), zeros[:, :1] + 1, zeros, (nothing, torch.ones(256, device=DEVICE))
        )
    torch.testing.assert_close(made.gates[0, 0, 2], values.tanh(), rtol=1e-6, atol=0)


def test_codes_of_a_state_are_those_of_quantize_rows() -> None:
    drawn, weight = draw(3, 4, 70)
    x, hidden, cell, _ = (one.detach() for one in drawn)
    x[1] = -200.0  # gates that are shut: a hidden state of zeros has scale 1
    with np.errstate(all="ignore"):
        made = kernels.forward(x, *quantize_rows(hidden), cell, (weight.codes, weight.scale.view(-1)))
    for step in range(3):
        codes, scale = quantize_rows(made.hidden[:, step])
        assert torch.equal(made.codes[step + 1], codes)
        assert torch.equal(made.scale[step + 1], scale)
    assert made.scale[1:, 1].unique().tolist() == [1.0]


def test_nan_reaches_a_scale() -> None:
    drawn, weight = draw(3, 3, 6)
    x, hidden, cell, _ = (one.detach() for one in drawn)
    x[1, 0, 0] = float("nan")
    with np.errstate(all="ignore"):
        made = kernels.forward(x, *quantize_rows(hidden), cell, (weight.codes, weight.scale.view(-1)))
    assert made.scale[:, :, 0].isfinite().tolist()[1] == [True, False, True]


def lstm(activation: ActivationSpec | None = None) -> nn.ModuleDict:
    torch.manual_seed(0)
    network = nn.ModuleDict({"lstm": nn.LSTM(6, 5, batch_first=True)}).to(DEVICE)
    prepare(network, QuantConfig("int4", [Rule("**", WeightSpec(bits=4), activation or ActivationSpec())]))
    set_precision(network, Precision.rules)
    return network


def test_a_quantized_lstm_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    network, x = lstm(), torch.randn(3, 4, 6, device=DEVICE)
    found = []
    for in_kernels in (False, True):
        monkeypatch.setattr(recurrence, "_kernels", lambda *given, on=in_kernels: kernels if on else None)
        with np.errstate(all="ignore"):
            out, (hidden, cell) = network["lstm"](x)
            gradients = torch.autograd.grad(out.square().sum() + cell.sum(), list(network.parameters()))
        found.append([out, hidden, cell, *gradients])
    for loop, in_one in zip(*found, strict=True):
        torch.testing.assert_close(in_one, loop, rtol=1e-3, atol=1e-4)
    with np.errstate(all="ignore"), pytest.raises(UserError, match=r"^lstm: NaN or infinity in the input"):
        network["lstm"](x, (torch.full((1, 3, 5), 0.5, device=DEVICE), torch.full((1, 3, 5), torch.nan, device=DEVICE)))


def test_only_codes_that_the_kernels_make_are_left_to_them(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[QuantizedTensor] = []
    monkeypatch.setattr(recurrence, "_kernels", lambda x, weight: asked.append(weight))
    x = torch.randn(2, 3, 6, device=DEVICE)
    lstm()["lstm"](x)
    assert len(asked) == 1
    for other in (ActivationSpec(bits=4), ActivationSpec(range=Range.full)):
        lstm(other)["lstm"](x)
    assert len(asked) == 1


@pytest.mark.parametrize(("chosen", "there"), [(None, True), ("triton", True), ("reference", False), ("cuda", False)])
def test_nibble_kernels_says_whether_they_run(monkeypatch: pytest.MonkeyPatch, chosen: str | None, there: bool) -> None:
    monkeypatch.setattr(implementations.triton, "missing", lambda: None)
    monkeypatch.delenv(implementations.VARIABLE, raising=False)
    if chosen is not None:
        monkeypatch.setenv(implementations.VARIABLE, chosen)
    assert (implementations.triton_kernels("recurrence") is kernels) == there
    monkeypatch.setattr(implementations.triton, "missing", lambda: "no GPU")
    assert implementations.triton_kernels("recurrence") is None


@pytest.mark.gpu
@pytest.mark.parametrize("batch", [20, 80])
def test_all_steps_of_a_real_batch_on_a_gpu(monkeypatch: pytest.MonkeyPatch, batch: int) -> None:
    """Threads that read what others have written wait for them, which the interpreter cannot show."""
    drawn, weight = draw(batch, 60, 640)
    with torch.no_grad():
        weight.scale /= 25  # gates as a trained network has them
    out, gradients, _ = found_by(monkeypatch, True, drawn, weight)
    want, slopes, _ = found_by(monkeypatch, False, drawn, weight)
    for found, expected in zip((*out, *gradients), (*want, *slopes), strict=True):
        difference, scale = (found - expected).abs(), expected.abs().max()
        assert difference.median() <= 1e-4 * scale
        assert difference.max() <= 0.02 * scale
    again, gradients_again, _ = found_by(monkeypatch, True, drawn, weight)
    for first, second in zip((*out, *gradients), (*again, *gradients_again), strict=True):
        assert torch.equal(first, second)  # a race would seldom end twice in the same way
