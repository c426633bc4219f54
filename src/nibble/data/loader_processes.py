"""What a run and its loader processes owe each other: a batch or an error arrives, and all end together."""

import atexit
import multiprocessing
import os
import signal
import sys
import traceback
from multiprocessing.queues import Queue
from typing import Any

from torch.utils.data import get_worker_info

from nibble.data.batch import Batch
from nibble.errors import UserError


def begin(_worker: int) -> None:
    """Make a loader process leave signals to the trainer, and end when a batch of it would be lost."""
    for number in (signal.SIGINT, signal.SIGTERM):  # a terminal sends Ctrl-C to all; its death would end a run unsaved
        signal.signal(number, signal.SIG_IGN)
    Queue._on_queue_feeder_error = staticmethod(_end_unsent)  # type: ignore[attr-defined]


def share(batch: Batch) -> Batch:
    """In a loader process, move a batch to memory that the trainer sees too.

    Torch would do so later, in a thread whose errors nobody hears of.

    Raises:
        UserError: there is no such memory left.
    """
    if get_worker_info() is None:
        return batch
    try:
        return batch.share_memory()
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"a loader process has no shared memory for a batch of {batch.duration_s:.0f} s: {error}. Enlarge /dev/shm "
            "(docker run --shm-size=2g), load without processes, hardware.workers=0, or give a smaller "
            "hardware.batch_duration_s"
        ) from error


def _end_unsent(error: Exception, _batch: Any) -> None:
    """Python's queue prints an error of its sending thread and forgets what was to be sent; the trainer would wait."""
    traceback.print_exception(error)
    sys.stderr.flush()
    os._exit(1)  # the trainer hears of that


@atexit.register  # so before the handler of multiprocessing, which sends them SIGTERM and waits for ever
def _end_all() -> None:
    """After an error, loader processes may still wait for orders, and they leave SIGTERM to the trainer."""
    for process in multiprocessing.active_children():
        if process.daemon:  # one that is to end with this process in any case
            process.kill()
