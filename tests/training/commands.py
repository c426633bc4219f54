"""Runs the real commands again and again: everything is imported once, and each command is a fork of that process.

A fork runs `train.py` or `python -m nibble.…` as `__main__` and ends as Python ends, so that what a command does at its
end (loader processes, exit codes, tracebacks) is what a user sees. It starts in no time, where a new Python takes six
seconds.
"""

import json
import os
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
LIMIT_S = 120  # a command that has not ended by then hangs


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int  # as a shell has it
    said: str  # both streams, in one line: what is printed is wrapped at some width
    after_error_s: float  # from the last words to the end


class Commands:
    """A process that has imported everything, and forks."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        )
        assert self._process.stdout is not None and self._process.stdin is not None  # noqa: PT018
        self._answers, self._orders = self._process.stdout, self._process.stdin

    def close(self) -> None:
        self._orders.close()
        self._process.wait()

    def __call__(
        self, *words: str, cwd: Path | None = None, patch: str = "", meanwhile: Callable[[int], object] | None = None
    ) -> Done:
        """Run `words`, "train.py" or "-m nibble.…" first, after the Python text `patch`.

        `meanwhile` is given the process id, which is also the id of a group of its own.
        """
        log = self.folder / "said.log"
        order = {"words": words, "cwd": str(cwd or self.folder), "log": str(log), "patch": patch, "limit_s": LIMIT_S}
        print(json.dumps(order), file=self._orders, flush=True)
        pid = int(self._answers.readline())
        if meanwhile is not None:
            meanwhile(pid)
        code = int(self._answers.readline())
        ended_s = time.time()
        said = " ".join(log.read_text(errors="replace").split())
        return Done(code, said, ended_s - log.stat().st_mtime)


def serve() -> dict | None:
    """Fork for each order; in a fork, the order."""
    import lhotse  # noqa: F401
    import pytorch_lightning  # noqa: F401

    import nibble.commands.hydra_command
    import nibble.commands.quantize
    import nibble.training.run  # noqa: F401
    from nibble.evaluation import footprints
    from nibble.memory import Footprint

    footprints.footprint = lambda *_: Footprint(0.1, 2_000_000, 3_000_000, 4_000_000)  # as in tests/conftest.py

    for line in sys.stdin:
        order = json.loads(line)
        pid = os.fork()
        if pid == 0:
            return order
        print(pid, flush=True)
        deadline = time.monotonic() + order["limit_s"]
        while not (found := os.waitpid(pid, os.WNOHANG))[0]:
            if time.monotonic() > deadline:
                os.killpg(pid, signal.SIGKILL)
            time.sleep(0.01)
        code = os.waitstatus_to_exitcode(found[1])
        print(code if code >= 0 else 128 - code, flush=True)
    return None


if __name__ == "__main__":
    order = serve()
    if order is not None:
        os.setsid()
        log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
        for stream in (1, 2):
            os.dup2(log, stream)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.chdir(order["cwd"])
        exec(order["patch"], {})
        command, *words = order["words"]
        if command == "-m":
            sys.argv = words
            runpy.run_module(words[0], run_name="__main__", alter_sys=True)
        else:
            sys.argv = [str(ROOT / command), *words]
            runpy.run_path(sys.argv[0], run_name="__main__")
