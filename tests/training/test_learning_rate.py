import math

import pytest

from nibble.training.learning_rate import learning_rate_factor
from nibble.training.options import LearningRateSchedule as Schedule


@pytest.mark.parametrize("schedule", list(Schedule))
def test_warm_up_is_linear_and_ends_at_one(schedule):
    factors = [learning_rate_factor(schedule, step, warmup_steps=10, max_steps=100) for step in range(11)]
    assert factors[:10] == pytest.approx([0.1 * n for n in range(1, 11)])
    assert factors[10] == pytest.approx(1.0)


def test_cosine_ends_at_zero():
    assert learning_rate_factor(Schedule.cosine, 55, 10, 100) == pytest.approx(0.5)
    assert learning_rate_factor(Schedule.cosine, 100, 10, 100) == pytest.approx(0.0)


def test_noam_falls_as_the_root_of_the_step():
    assert learning_rate_factor(Schedule.noam, 40, 10, 100) == pytest.approx(math.sqrt(10 / 40))


@pytest.mark.parametrize("schedule", list(Schedule))
def test_no_warm_up_is_fine(schedule):
    assert learning_rate_factor(schedule, 0, 0, 100) == pytest.approx(1.0, abs=1e-6) or schedule is Schedule.noam
