"""The fused loss against joiner and `transducer_loss`: the same numbers, and never the logits of all nodes."""

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from nibble.model import fused_loss
from nibble.model.fused_loss import fused_transducer_loss
from nibble.model.joiner import Joiner
from nibble.model.loss import transducer_loss
from nibble.model.targets import Targets

Batch = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


def make(sizes: list[tuple[int, int]], vocabulary: int = 7, seed: int = 0, spread: float = 3.0) -> tuple[Joiner, Batch]:
    """A joiner, and (encoded, predicted, lengths, labels, label lengths) of utterances of (frames, labels)."""
    torch.manual_seed(seed)
    joiner = Joiner(encoder_width=4, predictor_width=3, width=6, vocabulary_size=vocabulary)
    with torch.no_grad():
        joiner.output.weight.mul_(spread)
    lengths, label_lengths = (torch.tensor(column) for column in zip(*sizes, strict=True))
    frames, labels = int(lengths.max()), int(label_lengths.max())
    encoded = torch.randn(len(sizes), frames, 4, requires_grad=True)
    predicted = torch.randn(len(sizes), labels + 1, 3, requires_grad=True)
    return joiner, (encoded, predicted, lengths, torch.randint(1, vocabulary, (len(sizes), labels)), label_lengths)


def reference(joiner: Joiner, encoded: Tensor, predicted: Tensor, *targets: Tensor) -> Tensor:
    return transducer_loss(joiner(encoded, predicted), *targets).sum()


def fused(joiner: Joiner, encoded: Tensor, predicted: Tensor, *targets: Any) -> Tensor:
    return fused_transducer_loss(joiner, encoded, predicted, Targets(*targets))


def found_by(loss: Callable[..., Tensor], joiner: Joiner, batch: Batch) -> tuple[Tensor, list[Tensor]]:
    """The loss, and the gradients by encoded, predicted and every weight of the joiner."""
    value = loss(joiner, *batch)
    return value.detach(), list(torch.autograd.grad(1.7 * value, [*batch[:2], *joiner.parameters()]))


@pytest.fixture(params=[1, 8, 40, 2**14], ids="{} nodes at once".format)
def nodes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """So many at once that utterances are cut by frames, or grouped, or all together."""
    at_once(request.param, monkeypatch)
    return request.param


def at_once(nodes: int, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(fused_loss, "GROUP", nodes)
    patch.setattr(fused_loss, "PART", (nodes + 1) // 2)


sizes = st.lists(st.tuples(st.integers(1, 7), st.integers(0, 6)), min_size=1, max_size=4)


@settings(max_examples=60, deadline=None)
@given(sizes, st.integers(2, 9), st.sampled_from([1, 8, 40, 2**14]), st.integers(0, 2**16))
def test_loss_and_gradients_are_those_of_the_reference(
    sizes: list[tuple[int, int]], vocabulary: int, nodes: int, seed: int
) -> None:
    joiner, batch = make(sizes, vocabulary, seed)
    with pytest.MonkeyPatch.context() as patch:
        at_once(nodes, patch)
        value, gradients = found_by(fused, joiner, batch)
    want, slopes = found_by(reference, joiner, batch)
    torch.testing.assert_close(value, want, rtol=1e-5, atol=1e-5)
    for gradient, slope in zip(gradients, slopes, strict=True):
        torch.testing.assert_close(gradient, slope, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("nodes", [300, 2**14])
def test_a_large_lattice(nodes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    at_once(nodes, monkeypatch)
    joiner, batch = make([(60, 20), (45, 25)], vocabulary=50)
    value, gradients = found_by(fused, joiner, batch)
    want, slopes = found_by(reference, joiner, batch)
    torch.testing.assert_close(value, want, rtol=1e-6, atol=0)
    for gradient, slope in zip(gradients, slopes, strict=True):
        torch.testing.assert_close(gradient, slope, rtol=1e-3, atol=2e-4 * float(slope.abs().max()))


def test_gradients_in_float64_are_those_of_finite_differences(nodes: int) -> None:
    joiner, batch = make([(2, 1), (3, 2)])
    joiner.double()
    inputs = [x.detach().double().requires_grad_() for x in batch[:2]]
    assert torch.autograd.gradcheck(lambda *x: fused(joiner, *x, *batch[2:]), inputs, fast_mode=True)


class Largest(TorchDispatchMode):
    """Remembers how many elements the largest tensor had that any operation returned."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for x in out if isinstance(out, (list, tuple)) else (out,):
            if isinstance(x, Tensor):
                self.elements = max(self.elements, x.numel())
        return out


def test_the_logits_never_exist_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    joiner, batch = make([(20, 4), (18, 4), (5, 1)], vocabulary=100)
    for loss, nodes, most in (
        (reference, 10**6, 3 * 20 * 5 * 100),
        (fused, 100, 10 * 5 * 100),
        (fused, 20, 2 * 5 * 100),
    ):
        at_once(nodes, monkeypatch)
        with Largest() as largest:
            loss(joiner, *batch).backward()
        assert largest.elements == most


def test_only_what_is_cut_is_computed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    joiner, batch = make([(6, 1), (3, 1), (2, 1)])
    at_once(10, monkeypatch)
    rows: list[tuple[int, ...]] = []
    joiner.output.register_forward_hook(lambda module, inputs, output: rows.append(tuple(output.shape[:3])))
    fused(joiner, *batch).backward()
    once = [(1, 2, 2), (1, 2, 2), (1, 1, 2), (1, 2, 2), (1, 2, 2), (1, 2, 2)]  # by twos, shortest first
    assert rows[:6] == once
    assert rows[6:] == once[3:]  # six frames of two nodes are more than ten
    rows.clear()
    with torch.no_grad():
        fused(joiner, *batch)
    assert rows == once


def test_dropout_in_a_cut_utterance_is_the_same_again(monkeypatch: pytest.MonkeyPatch) -> None:
    joiner, batch = make([(6, 1)])
    joiner.output = torch.nn.Sequential(torch.nn.Dropout(0.5), joiner.output)
    at_once(8, monkeypatch)
    seen: list[Tensor] = []
    joiner.output.register_forward_hook(lambda module, inputs, output: seen.append(output.detach().clone()))
    fused(joiner, *batch).backward()
    first, again = seen[:3], seen[3:]
    assert len(again) == 3
    assert all(any(torch.equal(one, other) for other in first) for one in again)


@pytest.mark.parametrize("label", [1, 3], ids=["needed", "unused"])
@pytest.mark.parametrize("value", [-math.inf, math.inf, math.nan])
def test_it_is_finite_where_the_reference_is(label: int, value: float) -> None:
    joiner, (encoded, predicted, lengths, labels, label_lengths) = make([(4, 2), (3, 1)])
    labels.fill_(1)
    with torch.no_grad():
        joiner.output.bias[label] = value
    batch = encoded, predicted, lengths, labels, label_lengths
    found, want = fused(joiner, *batch), reference(joiner, *batch)
    assert found.isfinite() == want.isfinite()
    if want.isfinite():
        torch.testing.assert_close(found, want)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_has_a_float32_loss(dtype: torch.dtype, nodes: int) -> None:
    joiner, batch = make([(5, 3), (7, 2)])
    joiner.to(dtype)
    batch = (*(x.detach().to(dtype).requires_grad_() for x in batch[:2]), *batch[2:])
    value, gradients = found_by(fused, joiner, batch)
    want, slopes = found_by(reference, joiner, batch)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, want)
    for gradient, slope in zip(gradients, slopes, strict=True):
        assert gradient.dtype == dtype
        torch.testing.assert_close(gradient, slope, rtol=0.05, atol=0.02 * float(slope.abs().max()))


def test_autocast(nodes: int) -> None:
    joiner, batch = make([(5, 3), (7, 2)])
    with torch.autocast("cpu", torch.bfloat16):
        value, want = fused(joiner, *batch), reference(joiner, *batch)
    torch.testing.assert_close(value, want)
    weights = [*batch[:2], *joiner.parameters()]
    for gradient, slope in zip(torch.autograd.grad(value, weights), torch.autograd.grad(want, weights), strict=True):
        assert gradient.dtype == torch.float32
        torch.testing.assert_close(gradient, slope, rtol=0.05, atol=0.02 * float(slope.abs().max()))


def test_small_gradients_survive_float16_autocast() -> None:
    joiner, batch = make([(5, 3), (7, 2)])
    with torch.no_grad():
        joiner.output.bias[4] = -25.0  # a probability below the smallest of float16
    batch[3].fill_(1)
    with torch.autocast("cpu", torch.float16):
        loss = fused(joiner, *batch)
    (gradient,) = torch.autograd.grad(2.0**16 * loss, joiner.output.bias)
    _, slopes = found_by(reference, joiner, batch)
    torch.testing.assert_close(gradient[4] / 2**16, slopes[-1][4] / 1.7, rtol=0.01, atol=0)
    assert 0 < slopes[-1][4] < 1e-8


def test_without_gradients_it_is_the_loss_alone() -> None:
    joiner, batch = make([(5, 3), (7, 2)])
    want = reference(joiner, *batch)
    with torch.no_grad():
        torch.testing.assert_close(fused(joiner, *batch), want.detach())
    with torch.inference_mode():
        torch.testing.assert_close(fused(joiner, *batch), want.detach())
    assert not fused(joiner.requires_grad_(False), *(x.detach() for x in batch)).requires_grad


def test_what_is_not_trained_or_not_used_gets_no_gradient() -> None:
    joiner, batch = make([(5, 3), (7, 2)])
    joiner.output.weight.requires_grad_(False)
    joiner.output.register_parameter("unused", torch.nn.Parameter(torch.zeros(2)))
    (2 * fused(joiner, *batch)).backward()
    assert joiner.output.weight.grad is None
    assert joiner.output.unused.grad is None
    other = copy.deepcopy(joiner)
    other.zero_grad()
    (2 * reference(other, *batch)).backward()
    torch.testing.assert_close(joiner.output.bias.grad, other.output.bias.grad)
    torch.testing.assert_close(joiner.encoder.weight.grad, other.encoder.weight.grad)


def test_padding_is_ignored() -> None:
    joiner, (encoded, predicted, lengths, labels, label_lengths) = make([(4, 2)])
    alone = fused(joiner, encoded, predicted, lengths, labels, label_lengths)
    pad = torch.nn.functional.pad
    encoded, predicted = pad(encoded, (0, 0, 0, 3), value=9.0), pad(predicted, (0, 0, 0, 4), value=9.0)
    padded = fused(joiner, encoded, predicted, lengths, pad(labels, (0, 4), value=1), label_lengths)
    torch.testing.assert_close(padded, alone)


def test_with_lengths_as_numbers_nothing_is_read_from_a_tensor(nodes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    joiner, batch = make([(5, 3), (7, 0), (1, 2)])
    want = fused(joiner, *batch)
    counts = batch[2].tolist(), batch[4].tolist()

    class NothingIsRead(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            assert func.overloadpacket not in (torch.ops.aten._local_scalar_dense, torch.ops.aten.nonzero)
            return func(*args, **(kwargs or {}))

    monkeypatch.setattr(Tensor, "tolist", None, raising=False)
    monkeypatch.setattr(Tensor, "item", None, raising=False)
    with NothingIsRead():
        found = fused(joiner, *batch, counts)
        found.backward()
    torch.testing.assert_close(found, want, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("free_bytes", "nodes"), [(2**20, 2**15), (8 * 2**30, 2**18), (80 * 2**30, 2**21), (10**13, 2**22)]
)
def test_the_memory_of_a_gpu_says_how_many_nodes_it_takes_once(
    monkeypatch: pytest.MonkeyPatch, free_bytes: int, nodes: int
) -> None:
    asked: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: asked.append(device) or (free_bytes, 2**50))
    fused_loss._nodes_of_gpu.cache_clear()
    gpu = torch.device("cuda", 0)
    assert fused_loss._nodes_at_once(gpu, 1024) == (nodes, min(nodes, 2**18))
    assert fused_loss._nodes_at_once(gpu, 1024)[0] == nodes
    assert asked == [gpu]
    fused_loss._nodes_of_gpu.cache_clear()


@pytest.mark.gpu
def test_on_a_gpu() -> None:
    joiner, batch = make([(60, 20), (45, 25), (1, 0)], vocabulary=50)
    want, slopes = found_by(fused, joiner, batch)
    moved = (*(x.detach().cuda().requires_grad_() for x in batch[:2]), *(x.cuda() for x in batch[2:]))
    value, gradients = found_by(fused, joiner.cuda(), moved)
    torch.testing.assert_close(value.cpu(), want, rtol=1e-5, atol=0)
    for gradient, slope in zip(gradients, slopes, strict=True):
        torch.testing.assert_close(gradient.cpu(), slope, rtol=1e-3, atol=1e-3 * float(slope.abs().max()))
