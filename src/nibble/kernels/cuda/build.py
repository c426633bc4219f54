"""Compile the CUDA C++ of this folder into a library beside it. Nothing is compiled at import.

Only nvcc sees CUDA and only the C++ compiler sees torch, so neither has to know the other's version.
"""

import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import torch

from nibble.errors import UserError
from nibble.kernels.compiling import CHECKS, STABLE_ABI, cxx, digest_of, put, run
from nibble.kernels.gpu import OLDEST

FOLDER = Path(__file__).resolve().parent
LIBRARY = FOLDER / "libnibble_cuda.so"
# Machine code for Ampere also runs on Ada; Hopper and Blackwell, in servers and in desktops, have their own. Later GPUs
# compile the PTX when they load it.
ARCHITECTURES = "8.0+PTX;9.0a;10.0;12.0"
_NEEDED = "CUDA 12 or later, with a C++ compiler that it knows,"


def sources() -> str:
    """A digest of what the library is built from."""
    patterns = ("*.cpp", "*.h", "*.cu", "*.cuh")
    files = [file for pattern in patterns for file in FOLDER.glob(pattern)]
    return digest_of([*files, CHECKS, Path(__file__)])


def nvcc() -> str:
    """The path of CUDA's compiler: in $CUDA_HOME, on the path, or in /usr/local/cuda.

    Raises:
        UserError: it is in none of these places.
    """
    home = os.environ.get("CUDA_HOME")
    places = [*([f"{home}/bin/nvcc"] if home else []), "nvcc", "/usr/local/cuda/bin/nvcc"]
    found = next((path for place in places if (path := shutil.which(place))), None)
    if found is None:
        raise UserError("no nvcc; install CUDA 12 or later, or say where it is: CUDA_HOME=/usr/local/cuda")
    return found


def targets() -> list[str]:
    """nvcc's options for the GPUs of $TORCH_CUDA_ARCH_LIST, or for those of ARCHITECTURES that nvcc knows.

    GPUs before Ampere are left out: containers of several frameworks list them beside later ones.

    Raises:
        UserError: a name is not a GPU architecture, or all are older than Ampere.
    """
    listed = os.environ.get("TORCH_CUDA_ARCH_LIST") or _known(ARCHITECTURES)
    options: list[str] = []
    for name in filter(None, re.split(r"[;, ]+", listed)):
        parts = re.fullmatch(r"(\d+)\.(\d)(a?)(\+PTX)?", name)
        if parts is None:
            raise UserError(
                f"TORCH_CUDA_ARCH_LIST={listed}: {name} is not a GPU architecture; set it to {ARCHITECTURES}"
            )
        if int(parts[1]) < OLDEST[0]:
            continue
        number = parts[1] + parts[2] + parts[3]
        if number == "90":
            number = "90a"  # all GPUs of that number are Hoppers, and have its matrix instruction
        codes = f"sm_{number}" + (f",compute_{number}" if parts[4] else "")
        options += ["-gencode", f"arch=compute_{number},code=[{codes}]"]
        options += ["-DNIBBLE_WITH_HOPPER"] if number == "90a" else []
    if not options:
        raise UserError(
            f"TORCH_CUDA_ARCH_LIST={listed} names no GPU of Ampere (8.0) or later; unset it, or give {ARCHITECTURES}"
        )
    return options


def _known(architectures: str) -> str:
    """Those of a list that nvcc compiles for: CUDA 12.8 is the first that knows Blackwell.

    All of them if nvcc fails: what is wrong with it, the compilation tells.
    """
    said = subprocess.run([nvcc(), "--list-gpu-code"], capture_output=True, text=True, check=False)
    if said.returncode:
        return architectures
    codes = said.stdout.split()
    numbers = {name: re.sub(r"\D", "", name) for name in architectures.split(";")}
    return ";".join(name for name, number in numbers.items() if f"sm_{number}" in codes)


def toolkit() -> str:
    """The version of nvcc's CUDA: 13.0.

    Raises:
        UserError: there is no nvcc.
    """
    said = subprocess.run([nvcc(), "--version"], capture_output=True, text=True, check=False).stdout
    found = re.search(r"release (\d+\.\d+)", said)
    return found[1] if found else "unknown"


def compile_kernels(to: Path, *options: str) -> None:
    """Compile the kernels and the functions that launch them.

    Raises:
        UserError: there is no compiler, or it fails.
    """
    flags = ["-std=c++17", "-O3", "--threads", "0", "-Xcompiler", "-fPIC,-fvisibility=hidden"]
    run([nvcc(), *flags, *targets(), *options, "-c", str(FOLDER / "launch.cu"), "-o", str(to)], _NEEDED)


def build() -> Path:
    """Compile and link; the library appears whole or not at all.

    Raises:
        UserError: there is no compiler, it fails, or the folder cannot be written.
    """
    with tempfile.TemporaryDirectory() as temporary:
        kernels, operators, linked = (Path(temporary, name) for name in ("launch.o", "operators.o", LIBRARY.name))
        digest = f'-DNIBBLE_SOURCES="{sources()} toolkit {toolkit()}"'
        flags = ["-std=c++17", "-O2", "-fPIC", "-fvisibility=hidden", digest, *STABLE_ABI]
        run([cxx(), *flags, "-c", str(FOLDER / "operators.cpp"), "-o", str(operators)], _NEEDED)
        compile_kernels(kernels)
        libraries = Path(torch.__file__).parent / "lib"
        # CUDA's runtime is linked into the library: torch may bring another version, or none.
        link = ["-shared", "-cudart", "static", f"-L{libraries}", "-ltorch_cpu", "-o", str(linked)]
        run([nvcc(), str(kernels), str(operators), *link], _NEEDED)
        put(linked, LIBRARY)
    return LIBRARY
