"""The exceptions that carry a message for the person at the keyboard."""

import signal
from collections.abc import Iterable
from difflib import get_close_matches


class UserError(Exception):
    """An error that the user can correct. The text says what was wrong, with which value, and what to do.

    `train.py`, `evaluate.py` and `python -m nibble.*` print it without a traceback and exit with 1. It may quote names
    and texts from files: `str` of it is `printable`.
    """

    def __str__(self) -> str:
        return printable(super().__str__())


class Interrupted(BaseException):
    """A command was asked to stop by a signal. Not an `Exception`, so that nothing takes it for an error and goes on.

    Attributes:
        exit_code: of the command.
        abrupt: whether it may have been in the middle of anything, so that what it leaves is not to be saved.
        command: what goes on with what was stopped; empty: the command that was typed.
    """

    def __init__(self, number: int, abrupt: bool = False) -> None:
        super().__init__(number)
        self.abrupt = abrupt
        self.exit_code = 128 + number
        self.command = ""

    def __str__(self) -> str:
        return signal.Signals(self.exit_code - 128).name


def nearest(name: str, known: Iterable[str], count: int = 3) -> str:
    """The names in `known` closest to `name`, as text for a message; all of them if none is close."""
    names = sorted(known)
    close = get_close_matches(name, names, n=count, cutoff=0.5) or names
    return ", ".join(close)


def printable(text: object) -> str:
    """`text` with backslash escapes for what could not be printed, or would steer the terminal, but for line ends."""
    return "".join(c if c.isprintable() or c in "\n\t" else ascii(c)[1:-1] for c in str(text))
