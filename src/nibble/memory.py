"""Measures the memory of this process."""

import contextlib
import ctypes
import resource
import sys
from dataclasses import dataclass
from pathlib import Path

_STATUS = Path("/proc/self/status")


@dataclass(frozen=True)
class Footprint:
    """What a model takes in a process of its own: `nibble.inference.footprint`.

    Memory is resident memory above that of the process before it loads: Python and its packages are not in it.
    """

    load_s: float
    loaded_bytes: int
    ran_bytes: int  # after three runs
    peak_bytes: int  # while loading and running


def peak_bytes() -> int:
    """The most memory that this process has had."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def resident_bytes() -> int:
    """The memory that this process has now; where the system doesn't say, the most it has had."""
    return _said("VmRSS")


def start_high_water() -> None:
    """From now on `high_water_bytes` counts; where the system can't, it counts from the start of the process."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def high_water_bytes() -> int:
    """The most memory that this process has had since `start_high_water`."""
    return _said("VmHWM")


def _said(name: str) -> int:
    if not _STATUS.is_file():
        return peak_bytes()
    (line,) = (line for line in _STATUS.read_text().splitlines() if line.startswith(f"{name}:"))
    return 1024 * int(line.split()[1])


def give_back() -> None:
    """Return freed memory to the system: glibc keeps what loading a model needed for a while, a third of the total."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
