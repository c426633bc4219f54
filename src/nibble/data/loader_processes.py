"""Loader processes that never fail silently: a batch or an error reaches the trainer, and all end together."""

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
    """Set up a loader process: it ignores signals, which the trainer handles, and ends if it cannot send a batch."""
    for number in (signal.SIGINT, signal.SIGTERM):  # a terminal sends Ctrl-C to all; its death would end a run unsaved
        signal.signal(number, signal.SIG_IGN)
    Queue._on_queue_feeder_error = staticmethod(_end_unsent)  # type: ignore[attr-defined]


def share(batch: Batch) -> Batch:
    """In a loader process, move a batch to memory that the trainer sees too.

    Torch would do so later, in a thread whose errors the trainer never sees.

    Raises:
        UserError: there is no shared memory left.
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
    """End the process when a batch cannot be sent: Python's queue would only print the error, and the trainer wait."""
    traceback.print_exception(error)
    sys.stderr.flush()
    os._exit(1)  # torch tells the trainer that a loader process has ended


@atexit.register  # so before the handler of multiprocessing, which sends them SIGTERM and waits for ever
def _end_all() -> None:
    """Kill loader processes that still wait for work after an error; they ignore SIGTERM."""
    for process in multiprocessing.active_children():
        if process.daemon:  # one that is to end with this process in any case
            process.kill()
