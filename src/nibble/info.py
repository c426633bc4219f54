"""python -m nibble.info: which kernels are built, what is missing and why, and what each operator uses here.

Also how many threads compute, and how they wait for one another.
"""

import platform
import sys

import torch
from rich.console import Console
from rich.table import Table

from nibble import provenance, stopping, threads
from nibble.errors import UserError


def main() -> int:
    """Returns 0, or 1 if NIBBLE_KERNELS asks for what cannot be."""
    try:
        from nibble.kernels import ops  # loads what is built
        from nibble.kernels.implementations import IMPLEMENTATIONS, used_by, wanted
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    console = Console()
    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    where = provenance.hardware(torch.device(devices[-1]))
    console.print(f"torch {torch.__version__}, Python {platform.python_version()}, {where}", highlight=False)
    console.print(f"threads: {torch.get_num_threads()}, waiting with {threads.waiting()}", highlight=False)
    states = Table("kernels", "for", "state")
    states.add_row("reference", "all devices", "plain torch")
    for each in IMPLEMENTATIONS:
        reason = each.missing()
        state = f"missing: {reason}" if reason else f"runs: {each.variant()}" if each in wanted() else "not asked for"
        states.add_row(each.name, each.device, state)
    console.print(states)
    used = Table("operator", *(f"on {device}" for device in devices))
    for operator in ops.SCHEMAS:
        used.add_row(operator, *(used_by(operator, device) for device in devices))
    console.print(used)
    return 0


if __name__ == "__main__":
    stopping.run(main)
