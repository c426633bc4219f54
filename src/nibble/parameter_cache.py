"""Stretches of work in which no parameter changes, so that what is made of one may be kept till their end."""

import threading
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

Value = TypeVar("Value")


class _Kept(threading.local):
    values: dict[Hashable, Any] | None = None  # None outside


_kept = _Kept()


@contextmanager
def steady_parameters() -> Iterator[None]:
    """Inside, `made_once` makes a value once; the values are dropped at the end. For the thread that enters."""
    before = _kept.values
    _kept.values = {} if before is None else before
    try:
        yield
    finally:
        _kept.values = before


def made_once(key: Hashable, make: Callable[[], Value]) -> Value:
    """make(), or within `steady_parameters` what it gave for the same key before.

    Args:
        key: what the value is of; an object in it is kept alive, and told from others by identity.
        make: reads parameters, and neither its value nor anything else that lasts has their gradient.
    """
    values = _kept.values
    if values is None:
        return make()
    if key not in values:
        values[key] = make()
    found: Value = values[key]
    return found
