"""python -m nibble.kernels.build: compile the optional kernels; `make kernels` runs it.

Exits with 0 when something cannot be built here, and says why; with require=true, with 1.
"""

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nibble import stopping
from nibble.commands.words import BARE, run_words
from nibble.errors import UserError
from nibble.kernels.cpu import build as cpu
from nibble.kernels.cpu import library as cpu_library
from nibble.kernels.cuda import build as cuda
from nibble.kernels.cuda import library as cuda_library

_LIBRARIES = {
    "cpu": ("CPU", cpu.LIBRARY, cpu_library.missing, cpu.build),
    "cuda": ("CUDA", cuda.LIBRARY, cuda_library.not_up_to_date, cuda.build),
}


@dataclass
class BuildOptions:
    """The options of `python -m nibble.kernels.build`."""

    libraries: list[str] = field(default_factory=list, metadata=BARE)  # cpu, cuda or both; none: both
    require: bool = False  # exit with 1 if something cannot be built

    def __post_init__(self) -> None:
        if unknown := [name for name in self.libraries if name not in _LIBRARIES]:
            raise UserError(f"there is no {unknown[0]}; give cpu, cuda or both")


def main(words: Sequence[str] | None = None) -> int:
    """Build the libraries that are not up to date."""
    return run_words(_build, BuildOptions, __doc__, words)


def _build(options: BuildOptions) -> int:
    failed = [_failed(*_LIBRARIES[name]) for name in options.libraries or _LIBRARIES]
    return int(options.require and any(failed))


def _failed(name: str, library: Path, missing: Callable[[], str | None], build: Callable[[], Path]) -> bool:
    """Build one library, unless it is up to date, and say so."""
    if missing() is None:
        print(f"{name} kernels: up to date")
        return False
    started = time.perf_counter()
    print(f"{name} kernels: compiling", flush=True)
    try:
        build()
    except UserError as error:
        print(f"{name} kernels: not built: {error}", file=sys.stderr)
        return True
    print(f"{name} kernels: {library} in {time.perf_counter() - started:.0f} s")
    return False


if __name__ == "__main__":
    stopping.run(main)
