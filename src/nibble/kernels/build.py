"""python -m nibble.kernels.build: compile the optional kernels; `make kernels` runs it.

Exits with 0 when something cannot be built here, and says why; with `--require`, with 1.
"""

import argparse
import sys
import time

from nibble.errors import UserError
from nibble.kernels.cpu import build as cpu
from nibble.kernels.cpu import library


def main(arguments: list[str] | None = None) -> int:
    """Build what is not up to date."""
    parser = argparse.ArgumentParser(
        prog="python -m nibble.kernels.build", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--require", action="store_true", help="exit with 1 if something cannot be built")
    options = parser.parse_args(arguments)
    if library.missing() is None:
        print("CPU kernels: up to date")
        return 0
    started = time.perf_counter()
    print("CPU kernels: compiling", flush=True)
    try:
        built = cpu.build()
    except UserError as error:
        print(f"CPU kernels: not built: {error}", file=sys.stderr)
        return int(options.require)
    print(f"CPU kernels: {built} in {time.perf_counter() - started:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
