"""Compiles a library of operators beside its sources, and checks that it was built from them."""

import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

import torch

from nibble.errors import UserError
from nibble.writing import whole_file

CURE = "make kernels"
CHECKS = Path(__file__).resolve().with_name("checks.h")
# One file serves every torch from 2.10 on. torch.utils.cpp_extension would tie it to one, and fails where torch was
# built for another CUDA.
STABLE_ABI = ("-DTORCH_TARGET_VERSION=0x020a000000000000", "-isystem", str(Path(torch.__file__).parent / "include"))


def digest_of(files: Iterable[Path]) -> str:
    """A digest of the sources of a library; the library contains it after "nibble sources "."""
    return hashlib.sha256(b"\0".join(file.read_bytes() for file in sorted(files))).hexdigest()[:16]


def unfit(library: Path, digest: str) -> str | None:
    """Why an existing library cannot be used, with the cure; None if it was built from these sources."""
    content = library.read_bytes()
    start = content.find(b"nibble sources ") + len(b"nibble sources ")
    if content[start : start + 16].decode(errors="replace") == digest:
        return None
    return f"{library.name} was built from other sources; {CURE}"


def register(library: Path, kind: str, reason: str | None) -> None:
    """Register the operators of a library of kernels for `kind`, "CPU" or "CUDA"; `reason`: why it cannot run here.

    Raises:
        UserError: there is a reason, or torch cannot load the library.
    """
    if reason is not None:
        raise UserError(f"{kind} kernels: {reason}")
    try:
        torch.ops.load_library(library)
    except OSError as error:
        raise UserError(f"{kind} kernels: {library.name} cannot be loaded: {error}; {CURE}") from error


def cxx() -> str:
    """The C++ compiler: $CXX, or g++.

    Raises:
        UserError: there is no such program.
    """
    name = os.environ.get("CXX", "g++")
    if shutil.which(name) is None:
        raise UserError(f"no C++ compiler {name}; install g++ 12 or later, or name another: CXX=clang++")
    return name


def run(command: list[str], needed: str) -> None:
    """Run a compiler; `needed` is the version to name if it fails.

    Raises:
        UserError: it fails.
    """
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines()
        first = next((line for line in lines if "error" in line), lines[-1] if lines else f"exit {done.returncode}")
        raise UserError(f"{command[0]} failed: {first}; {needed} is needed")


def put(linked: Path, library: Path) -> None:
    """Copy a linked library to its place, whole or not at all.

    Raises:
        UserError: the folder cannot be written.
    """
    try:
        with whole_file(library) as path:
            shutil.copy(linked, path)
    except OSError as error:
        raise UserError(f"cannot write {library}: {error.strerror}; install with pip install -e .") from error
