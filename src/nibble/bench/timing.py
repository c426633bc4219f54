"""Times contenders in turns, so that a busy moment of the machine affects all of them.

A ratio is the median over the rounds of contender / baseline in the same round. Where one thread works, ratios are of
CPU time, which other processes disturb far less than wall time; where several work or a GPU does, of wall time.
"""

import math
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

import torch

from nibble import provenance
from nibble.bench.records import Measurement
from nibble.progress import track

_WARM_UP_CALLS = 3
_LONG_S = 1.0  # a call that takes longer needs no second warm-up call
_REST_S = 0.1  # ONNX Runtime's threads keep their cores for a while after its last call
_TURN_S = 0.02  # a turn of a short contender is many calls: clocks and their calls take about a microsecond


class Moment(NamedTuple):
    """The readings of both clocks."""

    cpu_s: float  # of all threads of this process
    wall_s: float


@dataclass
class Times:
    """Milliseconds a call, one entry a round."""

    cpu_ms: list[float] = field(default_factory=list)
    wall_ms: list[float] = field(default_factory=list)


def now() -> Moment:
    """Both clocks."""
    return Moment(time.process_time(), time.perf_counter())


def in_turns(
    contenders: Mapping[str, Callable[[], object]],
    rounds: int,
    description: str = "timing",
    clock: Callable[[], Moment] = now,
) -> dict[str, Times]:
    """Call every contender once in each round, after a warm-up; each round begins with another one.

    On several threads each turn waits until the threads of the one before rest.

    A contender must have finished when it returns: one that runs on a GPU waits for it.
    """
    calls = {name: _calls(contender, clock) for name, contender in contenders.items()}
    times = {name: Times() for name in contenders}
    names = list(contenders)
    turns = [name for number in range(rounds) for name in _rotated(names, number)]
    for name in track(turns, description, len(turns)):
        contender = contenders[name]
        if torch.get_num_threads() > 1:
            time.sleep(_REST_S)
            contender()  # wakes its own threads
        started = clock()
        for _ in range(calls[name]):
            contender()
        ended = clock()
        times[name].cpu_ms.append(1000 * (ended.cpu_s - started.cpu_s) / calls[name])
        times[name].wall_ms.append(1000 * (ended.wall_s - started.wall_s) / calls[name])
    return times


def paired_ratio(contender_ms: list[float], baseline_ms: list[float]) -> float:
    """The median over the rounds of contender / baseline."""
    return statistics.median(a / b for a, b in zip(contender_ms, baseline_ms, strict=True))


def measurements(
    bench: str,
    case: str,
    times: Mapping[str, Times],
    pairs: Iterable[tuple[str, str]],
    threads: int,
    device: torch.device | None = None,
) -> list[Measurement]:
    """A record for each pair of a contender and its baseline.

    Args:
        bench: what `python -m nibble.bench` calls it.
        case: what was timed.
        times: of each contender and baseline, from one call of `in_turns`.
        pairs: names (contender, baseline).
        threads: of the CPU.
        device: the GPU that they ran on; None for the CPU.
    """
    on_cpu = device is None or device.type == "cpu"
    clock = "cpu" if threads == 1 and on_cpu else "wall"

    def of(name: str) -> list[float]:
        return times[name].cpu_ms if clock == "cpu" else times[name].wall_ms

    return [
        Measurement(
            bench=bench,
            case=case,
            contender=contender,
            baseline=baseline,
            ratio=paired_ratio(of(contender), of(baseline)),
            median_ms=statistics.median(of(contender)),
            threads=threads,
            **provenance.here(device),
            clock=clock,
            wall_ms=statistics.median(times[contender].wall_ms),
            rounds=len(of(contender)),
        )
        for contender, baseline in pairs
    ]


@contextmanager
def torch_threads(threads: int) -> Iterator[None]:
    """Inside, torch uses this number of CPU threads; afterwards the number is as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _calls(contender: Callable[[], object], clock: Callable[[], Moment]) -> int:
    """How many calls make a turn long enough, found while warming up."""
    shortest_s = math.inf
    for _ in range(_WARM_UP_CALLS):
        started = clock()
        contender()
        shortest_s = min(shortest_s, clock().wall_s - started.wall_s)
        if shortest_s > _LONG_S:
            break
    return max(1, math.ceil(_TURN_S / max(shortest_s, 1e-6)))


def _rotated(names: list[str], by: int) -> list[str]:
    by %= len(names)
    return names[by:] + names[:by]
