"""The ids of a part, of which none may come twice."""

import random
import tracemalloc

from nibble.data.sources.seen import Seen


def test_a_text_is_new_once() -> None:
    draw, seen, known = random.Random(0), Seen(), set()
    for _ in range(20_000):
        text = f"utterance-{draw.randrange(10_000)}"
        assert seen.add(text) == (text not in known)
        known.add(text)


def test_memory_of_many() -> None:
    """At most 32 bytes each, and 16 more while the table grows."""
    tracemalloc.start()
    seen = Seen()
    for number in range(100_000):
        assert seen.add(f"a rather long path of an utterance/{number}")
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 48 * 100_000
