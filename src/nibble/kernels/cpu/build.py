"""Compile the C++ of this folder into a library beside it. Nothing is compiled at import.

The compiler is called directly: torch.utils.cpp_extension fails where torch was built for another CUDA, and would tie
the library to one version of torch. Through the stable ABI it serves every torch from 2.10 on.
"""

import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from nibble.errors import UserError

FOLDER = Path(__file__).resolve().parent
LIBRARY = FOLDER / "libnibble_cpu.so"

# Products and sums are rounded one by one, as the reference rounds them.
_FLAGS = ("-std=c++20", "-O3", "-fPIC", "-fvisibility=hidden", "-ffp-contract=off", "-DNDEBUG")
_STABLE_ABI = "-DTORCH_TARGET_VERSION=0x020a000000000000"  # 2.10
_COMMON = {"operators": (_STABLE_ABI,), "paths": (), "portable": ()}
_OF_MACHINE: dict[str, dict[str, tuple[str, ...]]] = {
    "x86_64": {
        "avx2": ("-mavx2",),
        "avx512_vnni": ("-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mavx512vnni"),
    },
    "aarch64": {"neon_dot": ("-march=armv8.2-a+dotprod",)},
}


def sources() -> str:
    """A digest of what the library is built from."""
    files = sorted([*FOLDER.glob("*.cpp"), *FOLDER.glob("*.h"), Path(__file__)])
    return hashlib.sha256(b"\0".join(file.read_bytes() for file in files)).hexdigest()[:16]


def units() -> dict[str, tuple[str, ...]]:
    """Name of each file to compile on this machine -> its flags.

    Raises:
        UserError: the library is not for this operating system or processor.
    """
    if platform.system() != "Linux" or platform.machine() not in _OF_MACHINE:
        raise UserError(
            f"the CPU kernels are for Linux on x86_64 and aarch64, not {platform.system()} on {platform.machine()}; "
            "the reference in plain torch runs here"
        )
    return {**_COMMON, **_OF_MACHINE[platform.machine()]}


def compiler() -> str:
    """The C++ compiler: that of $CXX, or g++.

    Raises:
        UserError: there is none.
    """
    name = os.environ.get("CXX", "g++")
    if shutil.which(name) is None:
        raise UserError(f"no C++ compiler {name}; install g++ 12 or later, or name another: CXX=clang++")
    return name


def build() -> Path:
    """Compile and link; the library appears whole or not at all.

    Raises:
        UserError: there is no compiler, it fails, or the folder cannot be written.
    """
    parts, cxx = units(), compiler()
    with tempfile.TemporaryDirectory() as temporary:
        objects = {name: f"{temporary}/{name}.o" for name in parts}
        digest = f'-DNIBBLE_SOURCES="{sources()}"'
        commands = [
            [cxx, *_FLAGS, *flags, digest, *_includes(), "-c", f"{FOLDER / name}.cpp", "-o", objects[name]]
            for name, flags in parts.items()
        ]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(_run, commands))
        linked = f"{temporary}/{LIBRARY.name}"
        libraries = Path(torch.__file__).parent / "lib"
        _run([cxx, "-shared", *objects.values(), f"-L{libraries}", "-ltorch_cpu", "-o", linked])
        try:
            partial = LIBRARY.with_suffix(f".{os.getpid()}")
            shutil.copy(linked, partial)
            partial.replace(LIBRARY)
        except OSError as error:
            raise UserError(f"cannot write {LIBRARY}: {error.strerror}; install with pip install -e .") from error
    return LIBRARY


def _includes() -> list[str]:
    return ["-isystem", str(Path(torch.__file__).parent / "include")]


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines()
        first = next((line for line in lines if "error" in line), lines[-1] if lines else f"exit {done.returncode}")
        raise UserError(f"{command[0]} failed: {first}; g++ 12 or later is needed")
