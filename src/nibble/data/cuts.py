"""Cuts that are created on demand, so that ten million utterances fit into memory."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import overload

import numpy as np
from lhotse import MonoCut
from numpy.typing import NDArray

Change = Callable[[MonoCut, int], MonoCut]
Text = Callable[[int], str]


class Cuts(Sequence[MonoCut]):
    """A sequence of Lhotse cuts that stores none of them: each is created from its number on demand.

    Only the durations are in memory, since samplers and screening look at all of them.

    Args:
        make: number -> the cut.
        durations_s: (N,) of the cuts.
        text: number -> what is said in the cut, if that is known without making it.
    """

    def __init__(
        self, make: Callable[[int], MonoCut], durations_s: NDArray[np.float64], text: Text | None = None
    ) -> None:
        self._make = make
        self.durations_s = durations_s
        self._text: Text = text or (lambda number: str(make(number).supervisions[0].text))

    @classmethod
    def of(cls, cuts: Iterable[MonoCut]) -> "Cuts":
        """Cuts that are in memory already."""
        held = list(cuts)
        return cls(held.__getitem__, np.array([cut.duration for cut in held], dtype=np.float64))

    @classmethod
    def join(cls, several: Sequence["Cuts"]) -> "Cuts":
        """All cuts of the first, then all of the second, and so on."""
        if len(several) == 1:
            return several[0]
        ends = np.cumsum([len(cuts) for cuts in several])

        def place(number: int) -> tuple[Cuts, int]:
            which = int(np.searchsorted(ends, number, side="right"))
            return several[which], number - (int(ends[which - 1]) if which else 0)

        def make(number: int) -> MonoCut:
            cuts, within = place(number)
            return cuts[within]

        def text(number: int) -> str:
            cuts, within = place(number)
            return cuts.text(within)

        durations_s = [cuts.durations_s for cuts in several]
        return cls(make, np.concatenate(durations_s) if durations_s else np.empty(0), text)

    def __len__(self) -> int:
        return len(self.durations_s)

    @overload
    def __getitem__(self, which: int | str) -> MonoCut: ...
    @overload
    def __getitem__(self, which: slice) -> "Cuts": ...
    def __getitem__(self, which: int | str | slice) -> "MonoCut | Cuts":
        """The cut with this number or (slow) this id; of a slice, those cuts."""
        if isinstance(which, slice):
            return self.select(np.arange(len(self))[which])
        if isinstance(which, str):
            return next(cut for cut in self if cut.id == which)
        number = which if which >= 0 else which + len(self)
        if not 0 <= number < len(self):
            raise IndexError(which)
        return self._make(number)

    def __iter__(self) -> Iterator[MonoCut]:
        return map(self._make, range(len(self)))

    def text(self, number: int) -> str:
        """What is said in the cut with this number, from 0 on."""
        return self._text(number)

    @property
    def texts(self) -> Iterator[str]:
        """What is said in each cut, in order; quicker than to make the cuts."""
        return map(self._text, range(len(self)))

    @property
    def ids(self) -> Iterator[str]:
        """The ids in order."""
        return (cut.id for cut in self)

    def select(self, numbers: NDArray[np.int64]) -> "Cuts":
        """The cuts with these numbers, in this order."""
        return Cuts(
            lambda number: self._make(int(numbers[number])),
            self.durations_s[numbers],
            lambda number: self._text(int(numbers[number])),
        )

    def spread(self, most: int) -> "Cuts":
        """At most `most` of the cuts, evenly spread."""
        return self if most >= len(self) else self.select(np.arange(most, dtype=np.int64) * len(self) // most)

    def changed(self, change: Change) -> "Cuts":
        """Each cut as `change(cut, number)` returns it; durations and texts stay."""
        return Cuts(lambda number: change(self._make(number), number), self.durations_s, self._text)
