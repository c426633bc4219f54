"""python -m nibble.info: which kernels are built, what is missing and why, and what each operator uses here.

Also how many threads compute, and how they wait for one another.
"""

import platform
import sys

import torch

from nibble import provenance, stopping, threads
from nibble.errors import UserError
from nibble.kernels import implementations, ops
from nibble.terminal import Console, Table


def main() -> int:
    """Returns 0, or 1 if NIBBLE_KERNELS asks for what cannot be."""
    try:
        implementations.load_once()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    console = Console()
    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    where = provenance.hardware(torch.device(devices[-1]))
    console.print(f"torch {torch.__version__}, Python {platform.python_version()}, {where}")
    console.print(f"threads: {torch.get_num_threads()}, waiting with {threads.waiting()}")
    states = [["reference", "all devices", "plain torch"]]
    wanted = implementations.wanted()
    for each in implementations.IMPLEMENTATIONS:
        reason = each.missing()
        state = f"missing: {reason}" if reason else f"runs: {each.variant()}" if each in wanted else "not asked for"
        states.append([each.name, each.device, state])
    console.print(Table(("kernels", "for", "state"), states, left=3))
    used = [[name, *(implementations.used_by(name, device) for device in devices)] for name in ops.OPERATORS]
    console.print(Table(("operator", *(f"on {device}" for device in devices)), used, left=1 + len(devices)))
    return 0


def run() -> None:
    """Run the command line."""
    stopping.run(main)
