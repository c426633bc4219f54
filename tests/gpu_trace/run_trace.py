"""Run `trace_steps.py` where Triton compiles and torch pretends to have a GPU: `make trace` prints its table."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from nibble.kernels.compiling import cxx, run

HERE = Path(__file__).resolve().parent


def run_trace(folder: Path, *options: str) -> dict[str, Any]:
    """What `trace_steps.py` finds; its table goes to this process's output.

    Raises:
        UserError: there is no C++ compiler.
        subprocess.CalledProcessError: the trace failed; it has said why.
    """
    preloaded = folder / "no_accelerator.so"
    include = Path(torch.__file__).parent / "include"
    flags = ["-std=c++17", "-O1", "-fPIC", "-shared", "-isystem", str(include)]
    run([cxx(), *flags, str(HERE / "no_accelerator.cpp"), "-o", str(preloaded)], "g++ 12 or later")
    env = {
        **os.environ,
        "LD_PRELOAD": str(preloaded),
        "TRITON_INTERPRET": "0",  # the tests' conftest asks for the interpreter, which compiles nothing
        "TRITON_CACHE_DIR": str(folder / "triton"),
        "OMP_NUM_THREADS": "1",
    }
    quiet = ["-W", "ignore:Accessing the data pointer of FakeTensor"]  # it is asked for, and is 0
    subprocess.run([sys.executable, *quiet, str(HERE / "trace_steps.py"), str(folder), *options], env=env, check=True)
    found: dict[str, Any] = json.loads((folder / "trace.json").read_text())
    return found


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        run_trace(Path(temporary), *sys.argv[1:])
