"""A progress bar for work that turns out to be long."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from nibble.terminal import Console

Item = TypeVar("Item")
PATIENCE_S = 2.0


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
    started_s = time.monotonic()
    try:
        for item in items:
            yield item
            progress.advance(task, size(item))
            if not shown and time.monotonic() - started_s > PATIENCE_S:
                progress.start()
                shown = True
    finally:
        if shown:
            progress.stop()
