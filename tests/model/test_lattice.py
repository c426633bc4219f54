"""Sums over alignments and what an alignment passes, by both implementations of the recursion."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from nibble.model.lattice import transducer_lattice

Lattice = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]

NEVER = -math.inf
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.fixture
def lattice_kernels() -> Lattice:
    """The kernels for a GPU, in Triton's interpreter where there is none; NumPy there says what happens to a NaN."""
    module = pytest.importorskip("nibble.model.lattice_triton", reason="Triton is not installed")

    def find(log_probs: Tensor, lengths: Tensor, label_lengths: Tensor) -> tuple[Tensor, Tensor]:
        with np.errstate(all="ignore"):
            found: tuple[Tensor, Tensor] = module.transducer_lattice(log_probs, lengths, label_lengths)
        return found

    return find


def random_lattice(seed: int, lengths: list[int], label_lengths: list[int]) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probabilities with NaN where an utterance has no node, frames and labels."""
    torch.manual_seed(seed)
    shape = len(lengths), max(lengths), max(label_lengths) + 1, 3
    log_probs = (4 * torch.randn(shape)).log_softmax(3)[..., :2]
    for row, (frames, labels) in enumerate(zip(lengths, label_lengths, strict=True)):
        log_probs[row, frames:] = math.nan
        log_probs[row, :, labels + 1 :] = math.nan
        log_probs[row, :, labels, 1] = math.nan
    return log_probs, torch.tensor(lengths), torch.tensor(label_lengths)


def by_recursion(log_probs: Tensor, frames: int, labels: int) -> Tensor:
    """Graves (2012), equation 16, in steps that autograd follows: log_probs (T', U + 1, 2) of one utterance."""
    alpha: dict[tuple[int, int], Tensor] = {(0, 0): log_probs.new_zeros(())}
    for t in range(frames):
        for u in range(labels + 1):
            ways = [alpha[t - 1, u] + log_probs[t - 1, u, 0]] if t else []
            ways += [alpha[t, u - 1] + log_probs[t, u - 1, 1]] if u else []
            if ways:
                alpha[t, u] = torch.stack(ways).logsumexp(0)
    return -(alpha[frames - 1, labels] + log_probs[frames - 1, labels, 0])


sizes = st.lists(st.tuples(st.integers(1, 6), st.integers(0, 6)), min_size=1, max_size=4)


@settings(max_examples=60, deadline=None)
@given(sizes, st.integers(0, 2**16))
def test_losses_and_occupations_are_those_of_the_recursion(sizes: list[tuple[int, int]], seed: int) -> None:
    lengths, label_lengths = ([*column] for column in zip(*sizes, strict=True))
    log_probs, *counts = random_lattice(seed, lengths, label_lengths)
    losses, occupation = transducer_lattice(log_probs, *counts)
    known = log_probs.double().requires_grad_()
    want = torch.stack([by_recursion(known[row], *size) for row, size in enumerate(sizes)])
    (slopes,) = torch.autograd.grad(want.sum(), known)
    torch.testing.assert_close(losses, want.detach(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(occupation, -slopes, rtol=1e-9, atol=1e-12)


def test_a_path_takes_every_frame_and_every_label_once() -> None:
    lengths, label_lengths = [300, 200, 1], [90, 120, 3]
    losses, occupation = transducer_lattice(*random_lattice(1, lengths, label_lengths))
    assert losses.max() > 300
    for row, (frames, labels) in enumerate(zip(lengths, label_lengths, strict=True)):
        blank, label = occupation[row].unbind(2)
        torch.testing.assert_close(blank[:frames].sum(1), torch.ones(frames, dtype=torch.double))
        torch.testing.assert_close(label[:, :labels].sum(0), torch.ones(labels, dtype=torch.double))
        assert not occupation[row, frames:].any()
        assert not occupation[row, :, labels + 1 :].any()


def test_what_has_no_path_and_what_is_no_number() -> None:
    log_probs, *counts = random_lattice(2, [3, 3, 3], [2, 2, 2])
    log_probs[0, :, 0, 1] = NEVER  # the first label nowhere
    log_probs[1, 1, 1, 0] = NEVER  # one edge of many
    log_probs[2, 1, 1, 0] = math.nan
    losses, occupation = transducer_lattice(log_probs, *counts)
    assert losses[0] == math.inf
    assert losses[2].isnan()
    assert losses[1].item() == pytest.approx(by_recursion(log_probs[1].double(), 3, 2).item())
    assert occupation[1, 1, 1, 0] == 0
    assert occupation[1].isfinite().all()


def test_kernels_find_the_same(lattice_kernels: Lattice) -> None:
    """Utterances of one frame, without labels, and shorter than others; NaN where one has no node."""
    for seed, (lengths, label_lengths) in enumerate(
        [([1], [0]), ([1, 3], [4, 0]), ([5], [0]), ([1], [3]), ([6, 4, 1], [2, 5, 5]), ([3, 9], [17, 1])]
    ):
        log_probs, *counts = (x.to(DEVICE) for x in random_lattice(seed, lengths, label_lengths))
        found = lattice_kernels(log_probs, *counts)
        want = transducer_lattice(log_probs.cpu(), *(x.cpu() for x in counts))
        for ours, theirs in zip(found, want, strict=True):
            assert ours.dtype == torch.float64
            torch.testing.assert_close(ours.cpu(), theirs, rtol=1e-12, atol=1e-12)


def test_kernels_where_there_is_no_path_or_no_number(lattice_kernels: Lattice) -> None:
    log_probs, *counts = random_lattice(2, [3, 3, 3, 2], [2, 2, 2, 0])
    log_probs[0, :, 0, 1] = NEVER  # the first label nowhere
    log_probs[1, 1, 1, 0] = NEVER  # one edge of many
    log_probs[2, 1, 1, 0] = math.nan
    log_probs[3, 1, 0, 0] = NEVER  # the only path
    found = lattice_kernels(log_probs.to(DEVICE), *(x.to(DEVICE) for x in counts))
    assert found[0].cpu().isfinite().tolist() == [False, True, False, False]
    for ours, theirs in zip(found, transducer_lattice(log_probs, *counts), strict=True):
        torch.testing.assert_close(ours.cpu(), theirs, rtol=1e-12, atol=1e-12, equal_nan=True)


def test_kernels_take_views_and_other_types(lattice_kernels: Lattice) -> None:
    log_probs, *counts = random_lattice(4, [4, 2], [2, 3])
    want = transducer_lattice(log_probs, *counts)
    wide = torch.cat((log_probs, log_probs), 3).double()[..., :2]  # as a teacher's, of three classes
    found = lattice_kernels(wide.to(DEVICE), *(x.to(DEVICE) for x in counts))
    for ours, theirs in zip(found, want, strict=True):
        torch.testing.assert_close(ours.cpu(), theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.gpu
def test_a_gpu_finds_the_same() -> None:
    inputs = random_lattice(3, [300, 200, 1], [90, 120, 3])
    found = transducer_lattice(*(x.cuda() for x in inputs))
    for ours, want in zip(found, transducer_lattice(*inputs), strict=True):
        torch.testing.assert_close(ours.cpu(), want, rtol=1e-9, atol=1e-12)
