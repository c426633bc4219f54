"""The options that a run's result depends on, and those in which runs differ."""

from collections.abc import Iterable, Mapping
from textwrap import shorten
from typing import Any

from nibble.config import plain
from nibble.provenance import relevant
from nibble.report.runs import Run

Options = dict[str, str]  # dotted name -> value as text

_OWN = ("seed",)  # options that differ between the runs of one system
_SHOWN = 80  # characters


def options_of(run: Run) -> Options:
    """Every option that the result depends on, except the seed."""
    return {name: value for name, value in _flat(relevant(plain(run.config))).items() if name not in _OWN}


def differing(among: Iterable[Options]) -> list[str]:
    """The names of the options that are not the same in all, sorted."""
    values: dict[str, set[str]] = {}
    for options in among:
        for name, value in options.items():
            values.setdefault(name, set()).add(value)
    return sorted(name for name, found in values.items() if len(found) > 1)


def described(options: Options, names: Iterable[str]) -> str:
    """name=value of some options, in one line that is cut if it is too long."""
    return shorten(" ".join(f"{name}={options[name]}" for name in names), _SHOWN, placeholder=" …")


def _flat(options: Mapping[str, Any], prefix: str = "") -> Options:
    """Flatten nested options. All paths become one value, since a teacher's or starting run differs between seeds."""
    found: Options = {}
    for key, value in options.items():
        if isinstance(value, dict):
            found |= _flat(value, f"{prefix}{key}.")
        else:
            text = "null" if value is None else str(value)
            found[prefix + key] = "PATH" if "/" in text else text
    return found
