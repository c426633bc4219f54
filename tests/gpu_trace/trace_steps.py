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
from processes import processes

MODELS, PROFILES = ("conformer_s", "conformer_m", "conformer_l"), ("gpu", "h200")
KERNELS_OF = ("float", "ramp", "rules")  # those of int8 are those of the rules
PARALLEL_PHASES = ("float", "rules")
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
        loops: dict[str, str] = {}
        rows = [row for model in options.models for row in traced(trace, model, options, loops)]
    kernels = [checked(launch, options.folder) for launch in trace.kernels.values()]
    (options.folder / "trace.json").write_text(json.dumps({"steps": rows, "kernels": kernels, "optimizers": loops}))
    print(table(rows))
    for row in rows if options.where else ():
        for what in ("by_operator", "seconds_by_operator", "synchronisations"):
            most = sorted(row["found"][what].items(), key=lambda item: -item[1])[:25]
            print(row["model"], row["profile"], row["phase"], what, {name: round(number, 4) for name, number in most})


def traced(trace: Trace, model: str, options: argparse.Namespace, loops: dict[str, str]) -> Iterator[dict[str, Any]]:
    """A row for each profile and phase of a model; `loops` gets how its optimizer works."""
    started, first = time.process_time(), options.profiles[0]
    whole = options.whole or model == MEASURED
    one = steps.Step(model, first, trace, 1)
    two = steps.Step(model, first, trace, 2) if whole else one
    loops[model] = steps.optimizer_loop(one.optimizer)
    layers = steps.config(model, first).model.layers if whole else 1

    def row(profile: str, phase: str, found: Found) -> dict[str, Any]:
        of = "all" if whole and phase in steps.PHASES else "one"
        return {"model": model, "profile": profile, "phase": phase, "layers": of, "found": as_plain(found)}

    for profile in options.profiles:
        one.take(profile)
        two.take(profile)
        phases = steps.whole(one, two, layers) if whole else {phase: one(phase) for phase in KERNELS_OF}
        yield from (row(profile, *found) for found in phases.items())
    one.take(first)
    yield from (row(first, *found) for found in steps.use(one).items())
    with processes():
        for kind in steps.PARALLEL:
            one = steps.Step(model, kind, trace, 1)
            loops[f"{model}, {kind}"] = steps.optimizer_loop(one.optimizer)
            if options.whole:
                found = steps.whole(one, steps.Step(model, kind, trace, 2), layers, PARALLEL_PHASES)
                yield from (row(kind, *of_phase) for of_phase in found.items())
            else:
                yield {**row(kind, "rules", one("rules")), "layers": "one"}
    print(f"{model}: traced in {time.process_time() - started:.1f} s", file=sys.stderr, flush=True)


def as_plain(found: Found) -> dict[str, Any]:
    return {name: dict(value) if isinstance(value, Counter) else value for name, value in vars(found).items()}


def checked(launch: launches.Launch, folder: Path) -> dict[str, Any]:
    """What a kernel becomes on each GPU, and what is wrong with it."""
    wrong = launch.beyond_limits()
    made = [] if wrong else [launches.compiled(launch, capability, folder) for capability in launches.CAPABILITIES]
    if made:
        wrong += [f"{launch.name}: {line}" for line in ranges.overflows(made[0].ttir, launch.grid, launch.integers)]
    return {
        "name": f"{launch.room}.{launch.name}",
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
                "instructions": one.instructions,
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
        of_whole = row["layers"] == "all"
        lines.append(
            [
                *(row[name] for name in ("model", "profile", "phase", "layers")),
                f"{found['launches']:,}",
                str(sum(found["synchronisations"].values())),
                f"{1000 * found['seconds']:.1f}",
                f"{found['peak_bytes'] / 2**30:.1f}",
                *(
                    f"{found[name] / floats[row['model'], row['profile']][name]:.2f}" if of_whole else ""
                    for name in ("seconds", "launches")
                ),
            ]
        )
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    main(sys.argv[1:])
