"""Which precision a fraction of training runs at."""

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
