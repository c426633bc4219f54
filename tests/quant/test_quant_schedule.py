"""Phases and ramps."""

import pytest

from nibble.quant.schedule import state_at
from nibble.quant.spec import Phase, Precision, ScheduleConfig

STAGED = ScheduleConfig(
    [Phase(0.0, Precision.float), Phase(0.5, Precision.int8), Phase(0.7, Precision.rules, ramp=0.1)]
)


@pytest.mark.parametrize(
    ("fraction", "precision", "blend"),
    [
        (0.0, Precision.float, 1.0),
        (0.499, Precision.float, 1.0),
        (0.5, Precision.int8, 1.0),
        (0.7, Precision.rules, 0.0),
        (0.75, Precision.rules, 0.5),
        (0.8, Precision.rules, 1.0),
        (1.0, Precision.rules, 1.0),
    ],
)
def test_staged(fraction, precision, blend):
    found = state_at(STAGED, fraction)
    assert found[0] is precision
    assert found[1] == pytest.approx(blend)


def test_the_default_quantizes_from_the_first_step():
    assert state_at(ScheduleConfig(), 0.0) == (Precision.rules, 1.0)


def test_a_ramp_from_the_start():
    schedule = ScheduleConfig([Phase(0.0, Precision.rules, ramp=0.5)])
    assert state_at(schedule, 0.0) == (Precision.rules, 0.0)
    assert state_at(schedule, 0.25) == (Precision.rules, 0.5)
