"""A progress bar for work that turns out to be long."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from nibble.terminal import Console

Item = TypeVar("Item")
PATIENCE_S = 2.0
_AGAIN_S = 0.1  # after which the bar is told again: telling it of each of ten million items takes minutes


def track(
    items: Iterable[Item], description: str, total: int | None, size: Callable[[Item], int] = lambda _: 1
) -> Iterator[Item]:
    """Yield `items`; after two seconds show on stderr how many of `total` are done and the time left.

    `size` says how much of `total` an item is: `len` where items are batches and `total` counts utterances. Where the
    total is not known (None), it shows how many are done.
    """
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    # Lines printed meanwhile go above the bar; those of a redirected stdout go where it leads.
    progress = Progress(*columns, console=Console(stderr=True), transient=True, redirect_stdout=sys.stdout.isatty())
    task = progress.add_task(description, total=total)
    shown = False
    started_s, told_s = time.monotonic(), 0.0
    done = 0
    try:
        for item in items:
            yield item
            done += size(item)
            now_s = time.monotonic()
            if not shown and now_s - started_s > PATIENCE_S:
                progress.start()
                shown = True
            if shown and now_s - told_s > _AGAIN_S:
                progress.update(task, completed=done)
                told_s = now_s
    finally:
        if shown:
            progress.update(task, completed=done)
            progress.stop()


@contextmanager
def seconds_bar(description: str, total_s: float | None) -> Iterator[Callable[[float], None]]:
    """A bar on stderr of how many seconds of audio are done and the time left, once two seconds have passed.

    Yields a function that is told how many more seconds are done. None where the total is not known.
    """
    done = TextColumn("{task.completed:.0f} s" if total_s is None else "{task.completed:.0f}/{task.total:.0f} s")
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), done, TimeRemainingColumn())
    progress = Progress(*columns, console=Console(stderr=True), transient=True, redirect_stdout=sys.stdout.isatty())
    task = progress.add_task(description, total=total_s)
    started_s = time.monotonic()

    def advance(seconds: float) -> None:
        progress.advance(task, seconds)
        if not progress.live.is_started and time.monotonic() - started_s > PATIENCE_S:
            progress.start()

    try:
        yield advance
    finally:
        progress.stop()
