"""python -m nibble.kernels.build: compile the optional kernels; `make kernels` runs it.

Exits with 0 when something cannot be built here, and says why; with `--require`, with 1.
"""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

from nibble import stopping
from nibble.errors import UserError
from nibble.kernels.cpu import build as cpu
from nibble.kernels.cpu import library as cpu_library
from nibble.kernels.cuda import build as cuda
from nibble.kernels.cuda import library as cuda_library


def main(arguments: list[str] | None = None) -> int:
    """Build the libraries that are not up to date."""
    parser = argparse.ArgumentParser(
        prog="python -m nibble.kernels.build", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("libraries", nargs="*", metavar="cpu|cuda", help="which; without any, both")
    parser.add_argument("--require", action="store_true", help="exit with 1 if something cannot be built")
    options = parser.parse_args(arguments)
    libraries = {
        "cpu": ("CPU", cpu.LIBRARY, cpu_library.missing, cpu.build),
        "cuda": ("CUDA", cuda.LIBRARY, cuda_library.not_up_to_date, cuda.build),
    }
    if unknown := [name for name in options.libraries if name not in libraries]:
        parser.error(f"there is no {unknown[0]}; give cpu, cuda or both")
    failed = [_failed(*libraries[name]) for name in options.libraries or libraries]
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
