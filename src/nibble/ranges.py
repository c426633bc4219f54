"""Ranges of numeric options. A dataclass of options calls `check` with a range for each of its numbers."""

import math
from types import NoneType
from typing import Any, NamedTuple, get_args, get_type_hints

from nibble.errors import UserError

_MOST = 2**31 - 1  # of what counts or multiplies: beyond any machine, and sums stay within 64 bits


class Range(NamedTuple):
    """Numbers from `least` to `most`, both included unless `open_below`."""

    least: float
    most: float = _MOST
    open_below: bool = False

    def __contains__(self, value: object) -> bool:
        if not isinstance(value, int | float) or not math.isfinite(value):
            return False
        return self.least <= value <= self.most and not (self.open_below and value == self.least)

    def __str__(self) -> str:
        least = f"more than {self.least:g}" if self.open_below else f"at least {self.least:g}"
        if self.most == _MOST:
            return least
        return f"{least} and at most {self.most:.10g}" if self.open_below else f"{self.least:g} to {self.most:.10g}"


COUNT = Range(1)
COUNT_OR_NONE = Range(0)
POSITIVE = Range(0, open_below=True)
SHARE = Range(0, 1)
DECIBELS = Range(-100, 100)
SEED = Range(0, 2**32 - 1)  # what all random number generators take


def check(options: Any, group: str, **ranges: Range) -> None:
    """Raise `UserError` for the first option that is outside its range; null is always within.

    Args:
        options: a dataclass.
        group: where its options stand on the command line, such as "trainer."; empty at the top.
        ranges: by the names of options.
    """
    for name, allowed in ranges.items():
        value = getattr(options, name)
        for one in value if isinstance(value, list) else [value]:
            if one is not None and one not in allowed:
                shown = str(value) if len(str(value)) < 60 else f"{str(value)[:60]}…"
                null = ", or null" if NoneType in get_args(get_type_hints(type(options))[name]) else ""
                raise UserError(f"{group}{name}={shown}; give {allowed}{null}")
