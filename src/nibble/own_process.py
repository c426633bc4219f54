"""Runs a function in a fresh Python process, and returns its result.

A plain subprocess, since `multiprocessing` refuses to start one from a daemonic worker, as those of joblib and submitit
are, and imports the main module of the parent again.
"""

import os
import pickle
import subprocess
import sys
import traceback
from collections.abc import Callable
from typing import Any, TypeVar, cast

from nibble.errors import UserError

Result = TypeVar("Result")


def in_process(work: Callable[[], Result]) -> Result:
    """Run `work` in a process of its own, which begins with nothing of this one but the search path of modules.

    What it prints goes to standard error. Ctrl-C reaches this process alone, which then ends the other.

    Args:
        work: is pickled, and so is what it returns or raises.

    Raises:
        UserError: the process was killed, as it is when memory runs out.
    """
    path = [str(folder) for folder in sys.path]
    code = f"import sys; sys.path[:] = {path!r}; from nibble.own_process import _answer; _answer()"
    done = subprocess.run(
        [sys.executable, "-c", code], input=pickle.dumps(work), stdout=subprocess.PIPE, process_group=0, check=False
    )
    if done.returncode < 0:
        raise UserError(f"a process for measuring was killed by signal {-done.returncode}; free some memory, try again")
    if done.returncode:
        raise RuntimeError(f"a process for measuring ended with exit code {done.returncode}; its message is above")
    succeeded, result = pickle.loads(done.stdout)
    if not succeeded:
        raise result
    return cast(Result, result)


def _answer() -> None:
    """What the new process does: read the work from standard input, do it, and write the result."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    answer: tuple[bool, Any]
    try:
        answer = True, pickle.loads(sys.stdin.buffer.read())()
    except Exception as error:
        error.add_note(traceback.format_exc())
        answer = False, error
    with answers:
        pickle.dump(answer, answers)
