"""Sums over alignments and what an alignment passes, by both implementations of the recursion."""

import math
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from nibble.errors import UserError
from nibble.model import lattice
from nibble.model.lattice import path_sums, transducer_lattice

NEVER = -math.inf
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


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


@pytest.mark.filterwarnings("ignore:invalid value")
@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 3, 1), (1, 1, 5), (3, 4, 3), (2, 2, 9)], ids=str)
def test_the_kernel_computes_the_same_sums(shape: tuple[int, int, int]) -> None:
    lattice_triton = pytest.importorskip("nibble.model.lattice_triton", reason="Triton is not installed")
    torch.manual_seed(0)
    blank, label = (-5 * torch.rand(shape, dtype=torch.double, device=DEVICE) for _ in range(2))
    blank[0, -1, 0] = label[0, 0, -1] = NEVER
    if shape[1] > 2:
        blank[-1, 2, 0] = math.nan
    expected = path_sums(blank, label)
    assert expected[0, 0, 0] == 0
    assert expected.isnan().any() == (shape[1] > 2)
    torch.testing.assert_close(lattice_triton.path_sums(blank, label), expected, rtol=1e-12, atol=1e-12, equal_nan=True)


COMPILE = """
import pathlib, sys, triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from nibble.model.lattice_triton import _path_sums

signature = {**dict.fromkeys(("blank", "label", "sums"), "*fp64"), "frames": "i32", "positions": "i32"}
for capability in (80, 90):
    source = ASTSource(_path_sums, {**signature, "BLOCK": "constexpr"}, {"BLOCK": 256})
    made = triton.compile(source, target=GPUTarget("cuda", capability, 32), options={"num_warps": 4})
    pathlib.Path(sys.argv[1], f"{capability}.cubin").write_bytes(made.asm["cubin"])
"""


def test_the_kernel_compiles_and_spills_nothing(tmp_path: Path, disassembled: Callable[[Path], str]) -> None:
    pytest.importorskip("triton", reason="Triton is not installed")
    env = {**os.environ, "TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-c", COMPILE, str(tmp_path)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr[-2000:]
    for capability in (80, 90):
        assert not re.search(r"\b(LDL|STL)\b", disassembled(tmp_path / f"{capability}.cubin"))


def test_a_gpu_without_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("nibble.model.lattice_triton", raising=False)
    monkeypatch.setitem(sys.modules, "nibble.model.lattice_triton", None)
    with pytest.raises(UserError, match=r"needs Triton on a GPU.*pip install triton, or give loss=rnnt_torchaudio"):
        lattice._implementation(SimpleNamespace(is_cuda=True))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_finds_the_same() -> None:
    inputs = random_lattice(3, [300, 200, 1], [90, 120, 3])
    found = transducer_lattice(*(x.cuda() for x in inputs))
    for ours, want in zip(found, transducer_lattice(*inputs), strict=True):
        torch.testing.assert_close(ours.cpu(), want, rtol=1e-9, atol=1e-12)
