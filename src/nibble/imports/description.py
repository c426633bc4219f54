"""Reading another toolkit's description of a model: what it says, or a refusal by name and value."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nibble.errors import UserError

_LARGEST = 1_000_000  # of any size


class Described:
    """A mapping from a checkpoint's configuration file.

    Args:
        path: of the checkpoint, for messages.
        values: name -> value; other kinds are refused.
        prefix: before each name in messages.
    """

    def __init__(self, path: Path, values: object, prefix: str = "") -> None:
        if not isinstance(values, Mapping):
            raise UserError(f"{path}: its configuration has no section {prefix.rstrip('.') or 'at all'}")
        self.path = path
        self.values: Mapping[Any, Any] = values
        self.prefix = prefix

    def section(self, name: str) -> "Described":
        """A mapping inside."""
        return Described(self.path, self.values.get(name), f"{self.prefix}{name}.")

    def get(self, name: str, default: Any = None) -> Any:
        """A value; the default also where null is written."""
        value = self.values.get(name)
        return default if value is None else value

    def size(self, name: str, default: int | None = None) -> int:
        """A whole number from 1 on."""
        value = self.get(name, default)
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= _LARGEST:
            raise UserError(f"{self.path}: {self.prefix}{name}={value!r:.40} is no size")
        return value

    def require(self, name: str, allowed: tuple[Any, ...], instead: str, default: Any = None) -> Any:
        """A value that must be one of `allowed`; else it is refused by name and value with what to do `instead`."""
        value = self.get(name, default)
        if not any(value == one and isinstance(value, type(one)) for one in allowed):
            raise self.refused(name, value, instead)
        return value

    def refused(self, name: str, value: object, instead: str) -> UserError:
        """The error for a value that our model cannot represent."""
        return UserError(f"{self.path}: {self.prefix}{name}={value!s:.60} cannot be imported; {instead}")
