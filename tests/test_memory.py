"""Memory of this process, as the system counts it."""

import mmap

from nibble.memory import give_back, peak_bytes, resident_bytes

MANY = 64 * 2**20


def test_what_is_held_is_counted_and_what_was_held_is_the_peak() -> None:
    before = resident_bytes()
    with mmap.mmap(-1, MANY) as held:
        held.write(b"\1" * MANY)
        assert resident_bytes() - before > 0.9 * MANY
        assert peak_bytes() >= resident_bytes() - 2**20
    give_back()
    assert resident_bytes() - before < 0.5 * MANY
    assert peak_bytes() - before > 0.9 * MANY
