"""Reads broken and hostile files in a process with limits, and says what none of them may do.

A kind of input is a `Kind`: cases that write files, and what loads them. To add one, put it into the list `KINDS` of a
file `kinds_*.py` beside this one. A case must end in a `UserError`, or in what its files say; `load` compares the two.
Everything else fails: another exception, a crash, more than 20 s of CPU time or 2 GB, or a command that was executed.

The same seed and number give the same cases, on every machine.
"""

import contextlib
import faulthandler
import multiprocessing
import os
import resource
import shutil
import signal
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from nibble.errors import UserError

LIMIT_S = 20
LIMIT_BYTES = 2 * 2**30
MARKER = "EXECUTED"
COMMAND = f"touch {MARKER}"  # what a case writes where a careless reader would run it; each case has its own folder


Write = Callable[[Path], object]  # writes a case into an empty folder


@dataclass(frozen=True)
class Kind:
    """A kind of input."""

    name: str
    # (seed, count) -> what is wrong with each case, and what writes it; the first one is intact and must load. What
    # they start from is made once, by the first call, so keep it in a `functools.cache`.
    cases: Callable[[int, int], Iterator[tuple[str, Write]]]
    # Folder of a case -> anything. Raises UserError for what cannot be read, AssertionError if something else was
    # loaded than the files say.
    load: Callable[[Path], object]
    count: int = 200  # cases of a test without --fuzz-cases: all kinds together take half a minute


@dataclass
class Report:
    """What became of the cases of a kind."""

    refused: dict[str, str] = field(default_factory=dict)  # number and name of the case -> the message
    loaded: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)  # name of the case -> what it did

    def __str__(self) -> str:
        return f"{len(self.loaded)} loaded and equal, {len(self.refused)} refused, {len(self.failed)} failed"


def run(
    kind: Kind,
    folder: Path,
    seed: int = 0,
    count: int = 200,
    limit_s: int = LIMIT_S,
    limit_bytes: int = LIMIT_BYTES,
) -> Report:
    """Load `count` cases of a kind in processes of their own; a case that ends its process is followed by a new one.

    Args:
        kind: of input.
        folder: for files; inputs that failed stay in `folder/failed`.
        seed: of the cases.
        count: how many.
        limit_s: for one case, of CPU time; three times as long by the clock.
        limit_bytes: for one case, above what the process had before.
    """
    next(kind.cases(seed, count))  # makes what all cases start from, before processes share it
    report, done = Report(), 0
    while done < count:
        receive, send = multiprocessing.Pipe(duplex=False)
        arguments = (kind, folder, seed, count, done, limit_s, limit_bytes, send)
        process = multiprocessing.get_context("fork").Process(target=_load_all, args=arguments)
        process.start()
        send.close()
        current = None
        with contextlib.suppress(EOFError):
            while True:
                current = receive.recv()
                name, outcome, text = receive.recv()
                done, current = done + 1, None
                {"loaded": report.loaded, "refused": report.refused, "failed": report.failed}[outcome][name] = text
        process.join()
        if current is not None:
            report.failed[current] = _ending(process.exitcode, limit_s)
            _keep(folder, done, current, report.failed[current])
            done += 1
        elif process.exitcode == 0:
            break
        elif process.exitcode:
            raise RuntimeError(f"the cases of {kind.name} cannot be made: exit code {process.exitcode}")
    return report


def _keep(folder: Path, number: int, name: str, why: str) -> None:
    kept = folder / "failed" / f"{number:04d}"
    shutil.copytree(folder / "case", kept, dirs_exist_ok=True, symlinks=True)
    (kept / "WHY.txt").write_text(f"{name}\n{why}\n", encoding="utf-8", errors="backslashreplace")


def _ending(code: int | None, limit_s: int) -> str:
    if code in (-signal.SIGPROF, -signal.SIGALRM):
        return f"took longer than {limit_s} s"
    return f"ended the process: {signal.Signals(-code).name if code and code < 0 else f'exit code {code}'}"


def _load_all(
    kind: Kind, folder: Path, seed: int, count: int, first: int, limit_s: int, limit_bytes: int, send: Connection
) -> None:
    """In a process of its own: load the cases from number `first` on, and send what becomes of each."""
    torch.set_num_threads(1)
    faulthandler.disable()  # the parent says what ended it
    for ends in (signal.SIGPROF, signal.SIGALRM):  # the process, wherever it is
        signal.signal(ends, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * os.sysconf("SC_PAGE_SIZE") + limit_bytes
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    case = folder / "case"
    for number, (wrong, write) in enumerate(kind.cases(seed, count)):
        if number < first:
            continue
        if number == count:
            break
        shutil.rmtree(case, ignore_errors=True)
        case.mkdir(parents=True)
        os.chdir(case)
        write(case)
        name = f"{number}: {wrong}"
        send.send(name)
        signal.setitimer(signal.ITIMER_PROF, limit_s)  # of CPU time, since the machine may have other work
        signal.alarm(3 * limit_s)  # for what waits
        outcome, text = attempt(kind.load, case)
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.alarm(0)
        if outcome == "failed":
            _keep(folder, number, name, text)
        send.send((name, outcome, text))
    send.close()


def attempt(load: Callable[[Path], object], case: Path) -> tuple[str, str]:
    """("loaded", ""), ("refused", the message), or ("failed", what it did)."""
    try:
        load(case)
        found = ("loaded", "")
    except UserError as error:
        text = str(error)
        # A whole file or traceback in a message is no message.
        found = ("refused", text) if 0 < len(text) < 2_000 else ("failed", f"a message of {len(text)} characters")
    except BaseException:  # SystemExit too
        found = ("failed", traceback.format_exc())
    if (case / MARKER).exists():
        return "failed", "a command in it was executed"
    return found
