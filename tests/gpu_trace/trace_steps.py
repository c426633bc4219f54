"""Trace what training and evaluation would launch on a GPU, compile its Triton kernels, and print what it costs.

    make trace

`run_trace.py` sets up a process for it. What it finds is written as JSON.
"""

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import launches
import ranges
import steps
from pretend import Found, Trace, gpu

MODELS, PROFILES = ("conformer_s", "conformer_m", "conformer_l"), ("gpu", "h200")
MEASURED = "conformer_l"  # whose whole step is counted; of the others a layer is enough to find every kernel


def main(arguments: list[str]) -> None:
    """Trace, compile, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--profiles", nargs="+", default=PROFILES)
    parser.add_argument("--whole", action="store_true", help=f"count the whole step of every model, not of {MEASURED}")
    parser.add_argument("--where", action="store_true", help="print which operators and lines it is")
    options = parser.parse_args(arguments)
    with gpu() as trace:
        rows = list(traced(trace, options))
        loops = {profile: steps.optimizer_loop(MEASURED, profile) for profile in options.profiles}
    kernels = [checked(launch, options.folder) for launch in trace.kernels.values()]
    (options.folder / "trace.json").write_text(json.dumps({"steps": rows, "kernels": kernels, "optimizers": loops}))
    print(table(rows))
    for row in rows if options.where else ():
        for what in ("by_operator", "seconds_by_operator", "synchronisations"):
            most = sorted(row["found"][what].items(), key=lambda item: -item[1])[:25]
            print(row["model"], row["profile"], row["phase"], what, {name: round(number, 4) for name, number in most})


def traced(trace: Trace, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """A row for each model, profile and phase."""
    for model in options.models:
        for profile in options.profiles:
            started = time.process_time()
            whole = options.whole or model == MEASURED
            found = (steps.training if whole else steps.one_layer)(model, profile, trace)
            if profile == options.profiles[0]:
                found |= steps.use(model, profile, trace)
            print(f"{model}, {profile}: traced in {time.process_time() - started:.1f} s", file=sys.stderr, flush=True)
            for phase, one in found.items():
                layers = "all" if whole and phase in steps.PHASES else "one"
                yield {"model": model, "profile": profile, "phase": phase, "layers": layers, "found": as_plain(one)}


def as_plain(found: Found) -> dict[str, Any]:
    return {name: dict(value) if isinstance(value, Counter) else value for name, value in vars(found).items()}


def checked(launch: launches.Launch, folder: Path) -> dict[str, Any]:
    """What a kernel becomes on each GPU, and what is wrong with it."""
    wrong = launch.beyond_limits()
    made = [] if wrong else [launches.compiled(launch, capability, folder) for capability in launches.CAPABILITIES]
    if made:
        wrong += [f"{launch.name}: {line}" for line in ranges.overflows(made[0].ttir, launch.grid, launch.integers)]
    return {
        "name": launch.name,
        "constants": {launch.kernel.arg_names[path[0]]: str(value) for path, value in launch.constants.items()},
        "signature": launch.signature,
        "grid": launch.grid,
        "integers": launch.integers,
        "warps": launch.options["num_warps"],
        "wrong": wrong,
        "compiled": [
            {
                "capability": one.capability,
                "seconds": one.seconds,
                "registers": one.registers,
                "spilled_bytes": one.spilled_bytes,
                "shared_bytes": one.shared_bytes,
            }
            for one in made
        ],
    }


def table(rows: list[dict[str, Any]]) -> str:
    """A table in Markdown: what each step launches, how often it waits, and how long it takes by the model."""
    header = "model|profile|phase|layers|launches|synchronisations|modelled ms|peak GiB|ms / float|launches / float"
    lines = [header.split("|"), ["---"] * 10]
    floats = {(row["model"], row["profile"]): row["found"] for row in rows if row["phase"] == "float"}
    for row in rows:
        found = row["found"]
        base = floats[row["model"], row["profile"]]
        of_whole = row["layers"] == "all"
        lines.append(
            [
                *(row[name] for name in ("model", "profile", "phase", "layers")),
                f"{found['launches']:,}",
                str(sum(found["synchronisations"].values())),
                f"{1000 * found['seconds']:.1f}",
                f"{found['peak_bytes'] / 2**30:.1f}",
                *(f"{found[name] / base[name]:.2f}" if of_whole else "" for name in ("seconds", "launches")),
            ]
        )
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    main(sys.argv[1:])
