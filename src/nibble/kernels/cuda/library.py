"""The compiled library for CUDA tensors: whether it is built and up to date, and which of its kernels run here."""

import ctypes
import re

import torch

from nibble.errors import UserError
from nibble.kernels.compiling import CURE, cxx, register, unfit
from nibble.kernels.cuda.build import LIBRARY, nvcc, sources, targets
from nibble.kernels.gpu import missing_gpu

OPERATORS = ("linear_w4a8", "linear_w4a16")

_loaded: list[str] = []


def built() -> bool:
    """Whether the library file exists, even if it was built from other sources, and there is a GPU for it."""
    return LIBRARY.is_file() and missing_gpu() is None


def not_up_to_date() -> str | None:
    """Why the library is missing or out of date, with the cure; None if it is up to date."""
    if LIBRARY.is_file():
        return unfit(LIBRARY, sources())
    try:
        nvcc(), cxx(), targets()
    except UserError as error:
        return str(error)
    return f"not built; {CURE}"


def missing() -> str | None:
    """Why the library cannot run here, with the cure; None if it can."""
    return missing_gpu() or not_up_to_date() or older_driver(_driver())


def _driver() -> int:
    """The newest CUDA version that the driver supports: 12040 is 12.4."""
    version = ctypes.c_int()
    ctypes.CDLL("libcuda.so.1").cuDriverGetVersion(ctypes.byref(version))
    return version.value


def older_driver(driver: int) -> str | None:
    """Why a driver cannot run the library, with the cure; None if it can.

    Args:
        driver: the newest CUDA version that it supports. It also runs code of later versions with its first number.
    """
    built_by = re.search(rb"nibble sources \w+ toolkit (\d+)", LIBRARY.read_bytes())
    if built_by is None or int(built_by[1]) <= driver // 1000:
        return None
    known = f"{driver // 1000}.{driver % 1000 // 10}"
    return (
        f"built by CUDA {built_by[1].decode()}, and the driver supports CUDA up to {known}; install a newer driver, "
        f"or let the compiler of CUDA {driver // 1000} build them: CUDA_HOME=/usr/local/cuda-{known} {CURE}"
    )


def load() -> None:
    """Register the operators for CUDA tensors.

    Raises:
        UserError: there is no GPU, the library is missing or built from other sources, or torch is older than 2.10.
    """
    if _loaded:
        return
    register(LIBRARY, "CUDA", missing())
    _loaded.append(LIBRARY.name)


def instructions() -> str:
    """The matrix instructions that linear_w4a8 uses on this GPU."""
    hopper = torch.cuda.get_device_capability() == (9, 0) and "-DNIBBLE_WITH_HOPPER" in targets()
    return "wgmma" if hopper else "mma.sync"
