"""The loss's Triton kernels together in the fused loss; at the largest vocabulary, compiled ahead of time.

What they compile to at other sizes is a test of the launch trace, tests/gpu_trace.
"""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from test_fused_loss import found_by, fused, make

from nibble.model import fused_loss
from nibble.model.gpu_kernels import kernels
from nibble.model.node_log_probs import _ByKernels

pytest.importorskip("triton", reason="Triton is not installed")

COMPILE = """
import pathlib, sys, triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from nibble.model import node_log_probs_triton

logits = {"logits": "*bf16", "following": "*i64"}
sizes = {"VOCABULARY": "constexpr", "BLOCK": "constexpr"}
of = {
    node_log_probs_triton._backward: (
        {**logits, "total": "*fp32", "slopes": "*fp32", **sizes}, {"VOCABULARY": 5000, "BLOCK": 2048}, 8),
}
for kernel, (signature, constants, warps) in of.items():
    for capability in (80, 90, 120):
        source = ASTSource(kernel, signature, constants)
        options = {"num_warps": warps, "enable_fp_fusion": False}
        made = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
        pathlib.Path(sys.argv[1], f"{kernel.__name__}_{capability}.cubin").write_bytes(made.asm["cubin"])
"""


def test_the_largest_vocabulary_compiles_and_spills_nothing(
    tmp_path: Path, disassembled: Callable[[Path], str]
) -> None:
    env = {**os.environ, "TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path / "cache")}
    command = [sys.executable, "-c", COMPILE, str(tmp_path)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr[-2000:]
    made = sorted(tmp_path.glob("*.cubin"))
    assert len(made) == 3
    for file in made:
        assert not re.search(r"\b(LDL|STL)\b", disassembled(file)), file.name


@pytest.mark.parametrize("nodes", [8, 2**14])
def test_the_fused_loss_on_kernels_is_that_on_a_cpu(monkeypatch: pytest.MonkeyPatch, nodes: int) -> None:
    """In groups, and in parts that are computed twice."""
    monkeypatch.setattr(fused_loss, "GROUP", nodes)
    monkeypatch.setattr(fused_loss, "PART", nodes)
    joiner, batch = make([(5, 2), (1, 1), (3, 0)])
    want, slopes = found_by(fused, joiner, batch)
    triton = kernels("node_log_probs_triton")
    monkeypatch.setattr(fused_loss, "node_log_probs", lambda x, following: _ByKernels.apply(x, following, triton))
    monkeypatch.setattr(fused_loss, "transducer_lattice", kernels("lattice_triton").transducer_lattice)
    with np.errstate(all="ignore"):
        value, gradients = found_by(fused, joiner, batch)
    torch.testing.assert_close(value, want, rtol=1e-6, atol=0)
    for gradient, slope in zip(gradients, slopes, strict=True):
        torch.testing.assert_close(gradient, slope, rtol=1e-4, atol=1e-6)
