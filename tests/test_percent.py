"""Error rates as text."""

from nibble.percent import percent, percent_interval, points, points_interval


def test_rates() -> None:
    assert percent(0.0512) == "5.12 %"
    assert percent_interval((0.0512, 0.04, 0.06)) == "5.12 (4.00–6.00)"
    assert percent_interval((0.0512, 0.04, 0.06), 1) == "5.1 (4.0–6.0)"


def test_differences_have_a_sign() -> None:
    assert points(-0.0012) == "−0.12"
    assert points_interval((-0.001, -0.002, 0.001)) == "−0.10 (−0.20 … +0.10)"
    assert points_interval(None) == ""
