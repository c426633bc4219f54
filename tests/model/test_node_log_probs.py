"""Log-probabilities of blank and of a label, and their gradient: the kernels against torch."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from nibble.errors import UserError
from nibble.model import node_log_probs as room
from nibble.model.gpu_kernels import kernels
from nibble.model.node_log_probs import node_log_probs

pytest.importorskip("triton", reason="Triton is not installed")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
# NumPy in the interpreter says aloud what happens to a NaN.
pytestmark = pytest.mark.filterwarnings("ignore:invalid value", "ignore:divide by zero", "ignore:All-NaN")
Apply = Callable[[Tensor, Tensor], Tensor]


def by_kernels(logits: Tensor, following: Tensor) -> Tensor:
    found: Tensor = room._ByKernels.apply(logits, following, kernels("node_log_probs_triton"))
    return found


def by_log_softmax(logits: Tensor, following: Tensor) -> Tensor:
    log_probs = logits.double().log_softmax(-1)
    return torch.cat((log_probs[..., :1], log_probs.gather(-1, following.unsqueeze(-1))), -1)


def found_by(apply: Apply, logits: Tensor, following: Tensor, slopes: Tensor) -> tuple[Tensor, Tensor]:
    """What it gives, and the gradient by the logits."""
    leaf = logits.clone().requires_grad_()
    out = apply(leaf * 1, following)
    (gradient,) = torch.autograd.grad(out, leaf, slopes.to(out.dtype))
    return out.detach(), gradient


def draw(vocabulary: int, dtype: torch.dtype, spread: float = 5.0) -> tuple[Tensor, Tensor, Tensor]:
    """Logits (2, 3, 4, V), labels with blanks among them, and slopes; strides as a group of the loss has them."""
    generator = torch.Generator().manual_seed(vocabulary)
    logits = spread * torch.randn(2, 3, 4, vocabulary, generator=generator)
    following = torch.randint(0, vocabulary, (2, 1, 4), generator=generator).expand(2, 3, 4)
    slopes = torch.randn(2, 5, 4, 2, generator=generator)[:, 1:4]
    return logits.to(DEVICE, dtype), following.to(DEVICE), slopes.to(DEVICE)


@pytest.mark.parametrize("apply", [by_kernels, node_log_probs])
@pytest.mark.parametrize("vocabulary", [1, 2, 7, 64, 1000, 2049, 5000])
def test_values_and_gradients_are_those_of_log_softmax(apply: Apply, vocabulary: int) -> None:
    given = draw(vocabulary, torch.float32)
    for found, want in zip(found_by(apply, *given), found_by(by_log_softmax, *given), strict=True):
        assert found.dtype == torch.float32
        torch.testing.assert_close(found.double(), want.double(), rtol=1e-5, atol=5e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_logits_of_16_bits_are_computed_with_in_float32(dtype: torch.dtype) -> None:
    logits, following, slopes = draw(100, dtype)
    found, gradient = found_by(by_kernels, logits, following, slopes)
    want, slope = found_by(by_log_softmax, logits.double(), following, slopes)
    assert (found.dtype, gradient.dtype) == (torch.float32, dtype)
    torch.testing.assert_close(found.double(), want, rtol=1e-5, atol=5e-6)
    torch.testing.assert_close(gradient, slope.to(dtype), rtol=0.01, atol=1e-6)  # a unit in the last place


def test_the_logits_become_their_gradient_where_they_are() -> None:
    logits, following, slopes = draw(50, torch.bfloat16)
    leaf = logits.clone().requires_grad_()
    made = leaf * 1
    (gradient,) = torch.autograd.grad(by_kernels(made, following), made, slopes)
    assert gradient.data_ptr() == made.data_ptr()


def test_log_probabilities_near_zero_are_exact_far_from_zero() -> None:
    """A logit of 1000 and others of 990: rounded at 1000, errors would be 3e-5."""
    logits = torch.full((1, 10), 990.0, device=DEVICE)
    logits[0, 0] = 1000.0
    found = by_kernels(logits, torch.tensor([3], device=DEVICE))
    want = by_log_softmax(logits, torch.tensor([3], device=DEVICE))
    torch.testing.assert_close(found.double(), want, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("vocabulary", [6, 4097])
@pytest.mark.parametrize("value", [-math.inf, math.inf, math.nan])
def test_what_is_not_finite(vocabulary: int, value: float) -> None:
    logits, following, slopes = draw(vocabulary, torch.float32)
    logits[0, 0, 0, :5] = value  # blank and some labels
    logits[1, 0, 0, -1] = value  # another label
    logits[1, 1] = value  # all: the first block, too
    logits[1, 2, :, : min(vocabulary - 1, 2048)] = -math.inf
    for found, want in zip(
        found_by(by_kernels, logits, following, slopes),
        found_by(by_log_softmax, logits, following, slopes),
        strict=True,
    ):
        torch.testing.assert_close(found.double(), want.double(), rtol=1e-5, atol=5e-6, equal_nan=True)


def test_no_node_at_all() -> None:
    out = by_kernels(torch.zeros(0, 3, 7, device=DEVICE), torch.zeros(0, 3, dtype=torch.long, device=DEVICE))
    assert out.shape == (0, 3, 2)


def test_a_gpu_without_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "nibble.model.node_log_probs_triton", None)
    with pytest.raises(UserError, match=r"needs Triton on a GPU.*pip install triton, or give loss=rnnt_torchaudio"):
        kernels("node_log_probs_triton")
