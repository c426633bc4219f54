"""The provenance of a result: commit, hardware, command, and a hash of the configuration."""

import hashlib
import json
import os
import platform
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any, TypedDict

import torch

COMMAND = "NIBBLE_COMMAND"  # environment variable: the command, in a process that was started by another one

# Raise it whenever a change of the code changes what a training or an evaluation gives with the same options. Tables
# mark the records of code before that.
REVISION = 1

# Options that say where a run lives and how it is watched; the result is the same whatever they are.
_IRRELEVANT = (
    "run_dir",
    "resume",
    "records",
    "logger",
    "data.corpus_dir",
    "data.fsdd_dir",
    "data.noise.dir",
    "hardware.threads",
    "hardware.workers",
    "hardware.max_bundle_bytes",
    "hardware.max_rtf",
    "trainer.log_every_steps",
    "trainer.profile",
)


class Provenance(TypedDict):
    """Where a measurement comes from; its record has fields of these names."""

    hardware: str
    commit: str
    command: str


def here(device: torch.device | None = None) -> Provenance:
    """The provenance of what this process measures, on the CPU or on the GPU `device`."""
    return {"hardware": hardware(device), "commit": commit(), "command": command()}


def commit(folder: Path | None = None) -> str:
    """The git commit of the source, with "+dirty" when tracked or new files differ from it; results don't count."""
    folder = folder or Path(__file__).resolve().parent
    head = _git(folder, "rev-parse", "HEAD")
    if head is None:
        return "no commit"
    made = (f":(top,exclude){name}" for name in ("results", "RESULTS.md", "BENCHMARKS.md"))
    changes = _git(folder, "status", "--porcelain", "--", ":/", *made)
    return head + ("+dirty" if changes else "")


def hardware(device: torch.device | None = None) -> str:
    """CPU model and usable cores; the GPU as well if `device` is one."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    text = f"{_cpu_model()}, {cores} cores"
    if device is not None and device.type == "cuda":
        text += f", {torch.cuda.get_device_name(device)}"
    return text


def command() -> str:
    """The command line, with `python` for the interpreter; in a job of a sweep, the command for that job alone."""
    return os.environ.get(COMMAND) or shlex.join(["python", *sys.orig_argv[1:]])


def config_hash(values: dict[str, Any]) -> str:
    """Twelve hex digits of the plain configuration, without the options that do not change the result.

    Args:
        values: `nibble.config.plain` of the run; further keys (how it was evaluated) are hashed as they are.
    """
    return hashlib.sha256(json.dumps(relevant(values), sort_keys=True).encode()).hexdigest()[:12]


def relevant(values: dict[str, Any]) -> dict[str, Any]:
    """The plain configuration without the options that do not change the result."""
    kept: dict[str, Any] = json.loads(json.dumps(values))
    for option in _IRRELEVANT:
        *parents, name = option.split(".")
        group: Any = kept
        for parent in parents:
            group = group.get(parent) or {}
        group.pop(name, None)
    return kept


def _git(folder: Path, *arguments: str) -> str | None:
    """Output of git, or None where there is no git, no repository or no commit."""
    try:
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def _cpu_model() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
