"""Ends every command alike on Ctrl-C and SIGTERM: exit code 130 or 143, how to resume, and no traceback."""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from nibble import provenance
from nibble.errors import Interrupted

SIGNALS = (signal.SIGINT, signal.SIGTERM)
_going_on: list[str] = []  # commands that go on with what is being done; the last one is the nearest


def catch_signals() -> None:
    """Let a signal raise `Interrupted` where the main thread is; a second one ends the process at once."""
    for number in SIGNALS:
        signal.signal(number, _raise)


def end_at_the_next() -> None:
    """Let the next signal end the process at once, wherever it is."""
    for number in SIGNALS:
        signal.signal(number, _end)


@contextmanager
def go_on_with(command: str) -> Iterator[None]:
    """Inside, what a signal stops goes on with `command`; outside, with the command that was typed."""
    _going_on.append(command)
    try:
        yield
    except Interrupted as stop:
        stop.command = stop.command or command
        raise
    finally:
        _going_on.pop()


def farewell(stop: Interrupted) -> int:
    """Print what a command that was stopped says last; its exit code."""
    print(f"stopped by {stop}. To go on:\n  {stop.command or provenance.command()}", file=sys.stderr, flush=True)
    return stop.exit_code


def run(main: Callable[[], int | None]) -> NoReturn:
    """Run the `main` of a command, and end the process with the exit code that it returns, or that of a signal."""
    catch_signals()
    try:
        code = main()
    except Interrupted as stop:
        code = farewell(stop)
    sys.exit(code)


def _raise(number: int, _frame: FrameType | None) -> None:
    end_at_the_next()
    raise Interrupted(number, abrupt=True)


def _end(number: int, _frame: FrameType | None) -> None:
    stop = Interrupted(number)
    stop.command = _going_on[-1] if _going_on else ""
    os._exit(farewell(stop))
