"""Fixtures of the operators' tests."""

import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Tensors are small: a second thread only waits. For a module, so that its fixtures count in the same order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def disassembled():
    """disassembled(file) -> the machine code in a file for GPUs; the tool comes with CUDA, and in Triton's wheel."""
    triton = find_spec("triton")
    beside = Path(triton.origin).parent / "backends/nvidia/bin/cuobjdump" if triton and triton.origin else None
    tool = shutil.which("cuobjdump") or (str(beside) if beside and beside.is_file() else None)
    if tool is None:
        pytest.skip("no cuobjdump: neither a CUDA toolkit nor Triton is installed")

    def disassemble(file: str | Path) -> str:
        return subprocess.run([tool, "-sass", str(file)], capture_output=True, text=True, check=True).stdout

    return disassemble
