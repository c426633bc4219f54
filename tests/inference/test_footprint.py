"""Memory and time of loading, in a process of its own."""

import time
from collections.abc import Callable

from nibble.inference.footprint import footprint

MANY = 50_000_000


def hold() -> Callable[[], object]:
    """Needs three parts for a while, keeps two, and another while it runs."""
    time.sleep(0.1)
    kept = [bytearray(b"\1") * MANY for _ in range(3)]
    kept.pop()
    return lambda: kept.append(bytearray(b"\1") * MANY) if len(kept) < 3 else None


def test_what_is_held_after_loading_after_running_and_at_the_most() -> None:
    found = footprint(hold)
    assert 2 * MANY < found.loaded_bytes < 2.5 * MANY
    assert 3 * MANY < found.ran_bytes < 3.5 * MANY
    assert 3 * MANY < found.peak_bytes < 4.5 * MANY
    assert found.load_s > 0.1
