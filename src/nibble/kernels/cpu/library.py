"""The compiled library for CPU tensors: whether it is built and up to date, and which of its paths runs."""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

from nibble.errors import UserError
from nibble.kernels.compiling import CURE, cxx, register, unfit
from nibble.kernels.cpu.build import LIBRARY, sources, units

OPERATORS = (
    "quantize_rows",
    "silu_quantize_rows",
    "norm_quantize_rows",
    "linear_w8a8",
    "linear_w4a8",
    "linear_w4a16",
    "int_matmul",
    "conv2d_w8a8",
    "conv2d_relu_quantize",
    "relative_attention",
)

_loaded: list[ctypes.CDLL] = []


def built() -> bool:
    """Whether the library file exists, even if it was built from other sources."""
    return LIBRARY.is_file()


def missing() -> str | None:
    """Why the library cannot run here, with the cure; None if it can."""
    if built():
        return unfit(LIBRARY, sources())
    try:
        units(), cxx()
    except UserError as error:
        return str(error)
    return f"not built; {CURE}"


def load() -> None:
    """Register the operators for CPU tensors.

    Raises:
        UserError: the library is missing, was built from other sources, or torch is older than 2.10.
    """
    if _loaded:
        return
    register(LIBRARY, "CPU", missing())
    _loaded.append(ctypes.CDLL(str(LIBRARY)))


def paths() -> list[str]:
    """The paths that this machine can run, fastest first; the first is in use."""
    if not _loaded:
        return []
    name = _loaded[0].nibble_cpu_path
    name.restype = ctypes.c_char_p
    found: list[str] = []
    while (path := name(len(found))) is not None:
        found.append(path.decode())
    return found


@contextmanager
def forced(path: str) -> Iterator[None]:
    """Inside, another path than the fastest is used, by all threads."""
    if not _loaded or _loaded[0].nibble_cpu_force(path.encode()):
        raise UserError(f"the path {path} cannot run here; give one of {', '.join(paths())}")
    try:
        yield
    finally:
        _loaded[0].nibble_cpu_force(None)
