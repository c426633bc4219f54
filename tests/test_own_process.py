"""Work in a process of its own: its result, its failures, and from within the workers of job launchers."""

import multiprocessing
import os
import signal
from functools import partial
from multiprocessing.connection import Connection

import pytest

from nibble.errors import UserError
from nibble.own_process import in_process


def add(number: int) -> tuple[int, int]:
    """Prints too, which must not mix with the result."""
    print("adding", flush=True)
    return number + 1, os.getpid()


def fail() -> None:
    raise UserError("this file is broken")


def killed() -> None:
    """As the kernel does when memory runs out."""
    os.kill(os.getpid(), signal.SIGKILL)


def exited() -> None:
    os._exit(3)


def test_the_result_comes_from_another_process(capfd: pytest.CaptureFixture[str]) -> None:
    result, process = in_process(partial(add, 1))
    assert result == 2
    assert process != os.getpid()
    assert "adding" in capfd.readouterr().err


def test_what_goes_wrong_there_is_raised_here() -> None:
    with pytest.raises(UserError, match="this file is broken") as error:
        in_process(fail)
    assert "in fail" in "".join(error.value.__notes__)
    with pytest.raises(UserError, match="killed by signal 9; free some memory"):
        in_process(killed)
    with pytest.raises(RuntimeError, match="exit code 3"):
        in_process(exited)


def in_worker(answers: Connection) -> None:
    answers.send(in_process(partial(add, 41))[0])


def test_from_a_daemonic_worker() -> None:
    """As those of joblib and submitit are: `multiprocessing` refuses to start another process from there."""
    here, there = multiprocessing.Pipe(duplex=False)
    worker = multiprocessing.get_context("spawn").Process(target=in_worker, args=(there,), daemon=True)
    worker.start()
    there.close()
    assert here.recv() == 42
    worker.join()
