"""Compares the training time of one run for several precisions with that of separate runs.

Steps of the digits model are timed at every precision of both schedules, and summed as the schedules say:
no run is trained to its end. Loading is left out; it is the same for all.
"""

from collections import Counter
from statistics import median
from time import perf_counter
from typing import NamedTuple

import torch

from nibble import composition, provenance
from nibble.bench.random_batch import random_batch
from nibble.bench.records import Measurement
from nibble.config import Config
from nibble.progress import track
from nibble.quant.convert import prepare, set_precision
from nibble.quant.schedule import drawn_at
from nibble.quant.spec import Phase, Precision, ScheduleConfig
from nibble.runs.loaded import float_model
from nibble.training.losses import encode, fused

SEPARATE = ("float", "int8", "int4", "int2")
STEPS, STEPS_TOGETHER = 900, 1200
UTTERANCES, FRAMES, LABELS, VOCABULARY = 16, 320, 18, 18  # a batch of the digits
_ROUNDS = 12


class State(NamedTuple):
    """What the time of a step depends on."""

    quant: str  # the name of the rules
    precision: Precision
    on_ramp: bool


def measure() -> list[Measurement]:
    """The time of the run for several precisions over the sum of the separate ones."""
    configs = {quant: _config(f"quant={quant}") for quant in SEPARATE}
    together = _config("quant=int4", "schedule=together")
    separate = sum((_steps(config, STEPS) for config in configs.values()), Counter())
    one = _steps(together, STEPS_TOGETHER)
    step_ms = _step_ms(configs, sorted({*separate, *one}))
    separate_ms, together_ms = (sum(n * step_ms[state] for state, n in run.items()) for run in (separate, one))
    return [
        Measurement(
            bench="together",
            case=f"digits_babble, {together.model.name}",
            contender=f"{', '.join(together.schedule.together)} in one run of {STEPS_TOGETHER} steps",
            baseline=f"a run of {STEPS} steps each",
            ratio=together_ms / separate_ms,
            median_ms=together_ms,
            threads=torch.get_num_threads(),
            **provenance.here(),
        )
    ]


def _config(*overrides: str) -> Config:
    return composition.training_config(["experiment=digits", "run_dir=.", *overrides])


def _steps(config: Config, steps: int) -> Counter[State]:
    """How many steps of a run are in each state."""
    schedule = config.schedule if config.quant.rules else ScheduleConfig([Phase(0.0, Precision.float)])
    states = (drawn_at(schedule, step / steps, step) for step in range(steps))
    return Counter(State(config.quant.name, precision, blend < 1) for precision, blend in states)


def _step_ms(configs: dict[str, Config], states: list[State]) -> dict[State, float]:
    """Median time of a step in each state, forward, backward and optimizer, measured in turns."""
    networks = {}
    for quant, config in configs.items():
        torch.manual_seed(config.seed)
        model = float_model(config, VOCABULARY)
        prepare(model, config.quant)
        networks[quant] = model, torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    batch = random_batch(UTTERANCES, FRAMES, configs["float"].features.mel_bins, LABELS, VOCABULARY)
    times_ms: dict[State, list[float]] = {state: [] for state in states}
    for _ in track(range(_ROUNDS), "timing steps", _ROUNDS):
        for state in states:
            model, optimizer = networks[state.quant]
            set_precision(model, state.precision, 0.5 if state.on_ramp else 1.0)
            started = perf_counter()
            fused(model, encode(model, batch, UTTERANCES)).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            times_ms[state].append(1000 * (perf_counter() - started))
    return {state: median(times) for state, times in times_ms.items()}
