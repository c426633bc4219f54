"""Finds the precision of a training step in the schedule."""

import random

from nibble.quant.spec import Phase, Precision, ScheduleConfig


def phase_at(schedule: ScheduleConfig, fraction: float) -> Phase:
    """The phase that `fraction` of training, 0 ... 1, is in."""
    return next(phase for phase in reversed(schedule.phases) if phase.at <= fraction)


def state_at(schedule: ScheduleConfig, fraction: float) -> tuple[Precision, float]:
    """The precision and the blend of quantized into float weights at `fraction` of training, 0 ... 1.

    A phase with a ramp starts at blend 0 and reaches 1 after `ramp` of training.
    """
    phase = phase_at(schedule, fraction)
    if phase.ramp == 0:
        return phase.precision, 1.0
    return phase.precision, min((fraction - phase.at) / phase.ramp, 1.0)


def drawn_at(schedule: ScheduleConfig, fraction: float, step: int) -> tuple[Precision, float]:
    """As `state_at` for a step of training: of a phase that trains several precisions together, the one it draws.

    All are equally likely. The draw depends on the step alone, so a resumed run and all processes draw the same.
    """
    together = phase_at(schedule, fraction).together
    if not together:
        return state_at(schedule, fraction)
    return random.Random(step).choice(together), 1.0
