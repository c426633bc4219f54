"""Time of a step of int4 training for several ways in which threads wait, alone and beside a busy process.

Each way runs in a process of its own, since OpenMP reads the environment once. All take their steps in turns, so that
what else the machine does meets all of them. "Beside a busy process" starts one that computes without end on one core,
so a step on C cores has (C - 1/2) / C of the machine if the system divides it evenly.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch

from nibble import provenance
from nibble.bench.records import Measurement
from nibble.bench.timing import paired_ratio
from nibble.bench.train_step import step_config, training_step
from nibble.progress import track
from nibble.threads import CHOICES, SPINS, VARIABLE

MODEL = "conformer_xxs"
_ROUNDS = 9
_REST_S = 0.05  # until the threads of the turn before sleep
_OWN = "OpenMP's own waiting"
_ONE = "one thread"
_CONTENDERS: dict[str, dict[str, str]] = {
    f"{SPINS} spins": {VARIABLE: SPINS},
    "3000 spins": {VARIABLE: "3000"},
    "sleeping at once": {"OMP_WAIT_POLICY": "PASSIVE"},
    _ONE: {"OMP_NUM_THREADS": "1"},
    _OWN: {VARIABLE: "300000"},  # what GNU's library does by itself, said aloud, or `nibble.threads` would choose
}


def measure(rounds: int = _ROUNDS, model: str = MODEL) -> list[Measurement]:
    """Compare every way with OpenMP's default; beside a busy process also with itself alone."""
    with ExitStack() as running:
        workers = {name: running.enter_context(_worker(model, env)) for name, env in _CONTENDERS.items()}
        alone = _in_turns(workers, rounds, "alone")
        with _busy():
            beside = _in_turns(workers, rounds, "beside a busy process")
    found = []
    for name in _CONTENDERS:
        if name != _OWN:
            found.append(_measurement(model, "alone", name, _OWN, alone[name], alone[_OWN]))
            found.append(_measurement(model, "beside a busy process", name, _OWN, beside[name], beside[_OWN]))
        itself = f"{name}, alone"
        found.append(_measurement(model, "beside a busy process", name, itself, beside[name], alone[name]))
    return found


def work(model: str) -> None:
    """Take a step for each line of standard input, and say how many milliseconds it took."""
    step = training_step(step_config(model, "rnnt", "int4", "native"))
    step()
    print(torch.get_num_threads(), flush=True)
    for _ in sys.stdin:
        step()  # wakes the threads
        started = time.perf_counter()
        step()
        print(json.dumps(1000 * (time.perf_counter() - started)), flush=True)


@contextmanager
def _worker(model: str, environment: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    clean = {name: value for name, value in os.environ.items() if name not in (*CHOICES, "OMP_NUM_THREADS")}
    command = [sys.executable, "-c", f"from nibble.bench.threads import work; work({model!r})"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=clean | environment, stdin=pipe, stdout=pipe, text=True) as process:
        try:
            _answer(process)
            yield process
        finally:
            process.kill()


@contextmanager
def _busy() -> Iterator[None]:
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as process:
        try:
            yield
        finally:
            process.kill()


def _in_turns(workers: dict[str, subprocess.Popen[str]], rounds: int, case: str) -> dict[str, list[float]]:
    times_ms: dict[str, list[float]] = {name: [] for name in workers}
    names = list(workers)
    turns = [name for number in range(rounds) for name in names[number % len(names) :] + names[: number % len(names)]]
    for name in track(turns, case, len(turns)):
        time.sleep(_REST_S)
        stdin = workers[name].stdin
        assert stdin is not None
        stdin.write("\n")
        stdin.flush()
        times_ms[name].append(_answer(workers[name]))
    return times_ms


def _answer(worker: subprocess.Popen[str]) -> float:
    assert worker.stdout is not None
    return float(json.loads(worker.stdout.readline()))


def _measurement(
    model: str, case: str, contender: str, baseline: str, times_ms: list[float], baseline_ms: list[float]
) -> Measurement:
    return Measurement(
        bench="threads",
        case=f"a step of {model}, {case}",
        contender=contender,
        baseline=baseline,
        ratio=paired_ratio(times_ms, baseline_ms),
        median_ms=statistics.median(times_ms),
        threads=1 if contender == _ONE else os.cpu_count() or 1,
        **provenance.here(),
        clock="wall",
        rounds=len(times_ms),
    )
