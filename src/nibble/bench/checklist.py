"""Runs steps one after the other, each in its own process with a time limit; a failure does not stop the next ones."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nibble.terminal import Table


@dataclass(frozen=True)
class Step:
    """A command with its share of the time."""

    name: str
    command: Sequence[str]
    share_s: float  # its share of the time for all steps
    missing: Callable[[], str | None] = lambda: None  # why it cannot run here; None if it can
    environment: Mapping[str, str] = field(default_factory=dict)  # on top of this process's


@dataclass(frozen=True)
class Outcome:
    """The result of a step."""

    step: Step
    state: str  # passed, failed, left out
    reason: str  # why it failed or was left out
    took_s: float
    log: Path | None = None


def run(steps: Sequence[Step], folder: Path) -> list[Outcome]:
    """Run all steps; each one's output goes to `folder`/<name>.log.

    A step may take its share of the time, and what earlier steps left of theirs.
    """
    folder.mkdir(parents=True, exist_ok=True)
    saved_s, outcomes = 0.0, []
    for number, step in enumerate(steps, 1):
        print(f"[{number}/{len(steps)}] {step.name}: ", end="", flush=True)
        outcome = _one(step, folder, step.share_s + saved_s)
        saved_s += step.share_s - outcome.took_s
        print(
            f"{outcome.state}, {outcome.took_s:.0f} s" + (f": {outcome.reason}" if outcome.reason else ""), flush=True
        )
        outcomes.append(outcome)
    return outcomes


def failed(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """The outcomes that count as failures."""
    return [outcome for outcome in outcomes if outcome.state == "failed"]


def table(outcomes: Sequence[Outcome]) -> Table:
    """One row a step."""
    rows = [[each.step.name, each.state, f"{each.took_s:.0f} s", each.reason] for each in outcomes]
    return Table(("step", "state", "took", "why"), rows, left=4)


def _one(step: Step, folder: Path, limit_s: float) -> Outcome:
    if (reason := step.missing()) is not None:
        return Outcome(step, "left out", reason, 0.0)
    log, started = folder / f"{step.name.replace(' ', '_')}.log", time.monotonic()
    with log.open("wb") as output:
        # In a session of its own, so that at its limit a step ends with all that it started.
        process = subprocess.Popen(
            list(step.command),
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **step.environment},
            start_new_session=True,
        )
        try:
            code: int | None = process.wait(limit_s)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    took_s = time.monotonic() - started
    if code == 0:
        return Outcome(step, "passed", "", took_s, log)
    reason = f"not done after {limit_s:.0f} s" if code is None else f"exit {code}: {_last_line(log)}"
    return Outcome(step, "failed", f"{reason} ({log})", took_s, log)


def _last_line(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1][:200] if lines else "no output"


def python(*words: str) -> list[str]:
    """The command line that runs these words with this Python."""
    return [sys.executable, *words]
