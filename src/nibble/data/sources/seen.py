"""Remembers which ids a part has had, in the memory of a few bytes each."""

from array import array

_FIRST_SIZE = 2**10


class Seen:
    """A set of texts that holds 64 bits of each, and nothing else: a hash table with open addressing.

    Ten million ids take 270 MB, where a `set` of them takes more than 1.5 GB. Two different ids have the same 64 bits
    in one of 400,000 corpora of that size.
    """

    def __init__(self) -> None:
        self._table = array("Q", [0]) * _FIRST_SIZE  # 0: free
        self._count = 0

    def add(self, text: str) -> bool:
        """Add a text; returns whether it is new."""
        if 2 * self._count >= len(self._table):
            self._grow()
        new = _insert(self._table, hash(text) % 2**64 or 1)
        self._count += new
        return new

    def _grow(self) -> None:
        larger = array("Q", [0]) * (2 * len(self._table))
        for key in self._table:
            if key:
                _insert(larger, key)
        self._table = larger


def _insert(table: "array[int]", key: int) -> bool:
    """Put a key into its place, or into the next free one; returns whether it was not there."""
    last = len(table) - 1
    place = key & last
    while (there := table[place]) and there != key:
        place = (place + 1) & last
    table[place] = key
    return not there
