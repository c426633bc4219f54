"""The learning rate over training, as a factor of `optimizer.learning_rate`."""

import math

from nibble.training.options import LearningRateSchedule


def learning_rate_factor(schedule: LearningRateSchedule, step: int, warmup_steps: int, max_steps: int) -> float:
    """The factor at `step`: linear to 1 over `warmup_steps`, then as `schedule` says.

    cosine  (1 + cos(pi (step - warmup) / (max - warmup))) / 2
    noam    sqrt(warmup / step) (Vaswani et al., 2017, equation 3)
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    if schedule is LearningRateSchedule.noam:
        return math.sqrt(max(warmup_steps, 1) / max(step, 1))
    progress = (step - warmup_steps) / max(1, max_steps - warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
