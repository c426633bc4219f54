"""Compile the C++ of this folder into a library beside it. Nothing is compiled at import."""

import os
import platform
import shlex
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from nibble.errors import UserError
from nibble.kernels.compiling import CHECKS, STABLE_ABI, cxx, digest_of, put, run

FOLDER = Path(__file__).resolve().parent
LIBRARY = FOLDER / "libnibble_cpu.so"

# Products and sums are rounded one by one, as the reference rounds them.
FLAGS = ("-std=c++20", "-O3", "-fPIC", "-fvisibility=hidden", "-ffp-contract=off", "-DNDEBUG")
NEEDED = "g++ 12 or later"
# Outside of the products, a multiply-add may be rounded only once.
FUSED = ("-ffp-contract=fast",)
_COMMON: dict[str, tuple[str, ...]] = {
    "linear": STABLE_ABI,
    "products": STABLE_ABI,
    "convolution": STABLE_ABI,
    "rows": STABLE_ABI,
    "attention": STABLE_ABI,
    "weight_only": STABLE_ABI,
    "paths": (),
    "portable": (),
    "steps_portable": FUSED,
}
OF_MACHINE: dict[str, dict[str, tuple[str, ...]]] = {
    "x86_64": {
        "avx2": ("-mavx2",),
        "steps_avx2": ("-mavx2", "-mfma", *FUSED),
        "avx512_vnni": ("-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mavx512vnni"),
        "steps_avx512": ("-mavx512f", "-mprefer-vector-width=512", *FUSED),
    },
    "aarch64": {"neon_dot": ("-march=armv8.2-a+dotprod",)},
}


def sources() -> str:
    """A digest of what the library is built from."""
    return digest_of([*FOLDER.glob("*.cpp"), *FOLDER.glob("*.h"), CHECKS, Path(__file__)])


def units() -> dict[str, tuple[str, ...]]:
    """Name of each file to compile on this machine -> its flags.

    Raises:
        UserError: the library is not for this operating system or processor.
    """
    if platform.system() != "Linux" or platform.machine() not in OF_MACHINE:
        raise UserError(
            f"the CPU kernels are for Linux on x86_64 and aarch64, not {platform.system()} on {platform.machine()}; "
            "the reference in plain torch runs here"
        )
    return {**_COMMON, **OF_MACHINE[platform.machine()]}


def build() -> Path:
    """Compile and link; the library appears whole or not at all. Options in $CXXFLAGS go after our own.

    Raises:
        UserError: there is no compiler, it fails, or the folder cannot be written.
    """
    parts, compiler, more = units(), cxx(), shlex.split(os.environ.get("CXXFLAGS", ""))
    with tempfile.TemporaryDirectory() as temporary:
        objects = {name: f"{temporary}/{name}.o" for name in parts}
        digest = f'-DNIBBLE_SOURCES="{sources()}"'
        commands = [
            [compiler, *FLAGS, *flags, *more, digest, "-c", f"{FOLDER / name}.cpp", "-o", objects[name]]
            for name, flags in parts.items()
        ]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(lambda command: run(command, NEEDED), commands))
        linked = Path(temporary, LIBRARY.name)
        libraries = Path(torch.__file__).parent / "lib"
        link = ["-shared", *more, *objects.values(), f"-L{libraries}", "-ltorch_cpu", "-o", str(linked)]
        run([compiler, *link], NEEDED)
        put(linked, LIBRARY)
    return LIBRARY
