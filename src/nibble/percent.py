"""Error rates as text: in percent, differences in percentage points, each with its 95 % interval where there is one."""

Interval = tuple[float, float, float]  # value, lower and upper end


def percent(rate: float) -> str:
    """0.0512 -> 5.12 %."""
    return f"{100 * rate:.2f} %"


def percent_interval(rates: Interval, decimals: int = 2) -> str:
    """(0.0512, 0.04, 0.06) -> 5.12 (4.00–6.00)."""
    value, low, high = (f"{100 * rate:.{decimals}f}" for rate in rates)
    return f"{value} ({low}–{high})"


def points(difference: float) -> str:
    """A difference of rates in percentage points, with its sign: -0.0012 -> −0.12."""
    return f"{100 * difference:+.2f}".replace("-", "−")


def points_interval(differences: Interval | None) -> str:
    """(-0.001, -0.002, 0.001) -> −0.10 (−0.20 … +0.10); empty for None."""
    if differences is None:
        return ""
    value, low, high = map(points, differences)
    return f"{value} ({low} … {high})"
