"""How far the steps are, what the rest takes, and running it."""

import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path

from nibble import provenance
from nibble.errors import Interrupted
from nibble.evidence.steps import Kind, Place, Step
from nibble.evidence.tables import SPEECH
from nibble.plain import build_lines
from nibble.runs import run_file
from nibble.runs.records import append_line
from nibble.runs.run_folder import RunFolder

FILE = "steps.jsonl"  # below the folder of the runs: a line for each step that was done


class State(StrEnum):
    """How far a step is."""

    done = "done"
    left = "left"
    waits = "waits"  # for a run that is not finished, or for speech


@dataclass(frozen=True)
class Done:
    """A line of steps.jsonl."""

    table: str
    kind: str
    name: str
    took_s: float
    ended_s: float  # since 1970
    commit: str


class Progress:
    """What is done of the steps in one place.

    Args:
        place: where their runs lie.
    """

    def __init__(self, place: Place) -> None:
        self.file = place.folder / FILE
        self._runs = place.folder
        lines = build_lines(Done, self.file, "a step that was done", "delete that line")
        self._done = {(line.table, line.kind, line.name): line for line in lines}

    def state(self, step: Step) -> State:
        """How far a step is; an evaluation of a run that was trained again since is to be done again."""
        if self._is_done(step):
            return State.done
        return State.left if all(map(self._is_there, step.reads)) else State.waits

    def minutes(self, step: Step) -> float:
        """What a step takes: a training what those of its table have taken here so far, else what is planned."""
        alike = [line for line in self._done.values() if (line.table, line.kind) == (step.table, step.kind)]
        mean = sum(line.took_s for line in alike) / 60 / len(alike) if alike else None
        return mean if mean is not None and step.kind is Kind.train else step.minutes

    def run(self, step: Step) -> bool:
        """Run one step in a process of its own; False if it failed.

        A signal is passed on to it, and awaited, so that a training that is stopped is saved.
        """
        started_s = time.time()
        process = start(step.next_command)
        try:
            code = process.wait()
        except Interrupted:
            process.terminate()
            process.wait()
            raise
        if code == 0:
            ended_s = time.time()
            done = Done(step.table, step.kind, step.name, ended_s - started_s, ended_s, provenance.commit())
            append_line(self.file, asdict(done), "permit writing there")
            self._done[step.table, step.kind, step.name] = done
        return code == 0

    def _is_done(self, step: Step) -> bool:
        if step.makes is not None:
            return self._is_there(step.makes)
        line = self._done.get((step.table, step.kind, step.name))
        times_s = [RunFolder(run).run_file.stat().st_mtime for run in step.reads if RunFolder(run).run_file.is_file()]
        return line is not None and line.ended_s >= max(times_s, default=0.0)

    def _is_there(self, path: Path) -> bool:
        """Whether a run is finished, or a folder of speech exists."""
        return run_file.record(path) is not None if path.is_relative_to(self._runs) else path.is_dir()


def start(command: Sequence[str]) -> "subprocess.Popen[bytes]":
    """Start `python` with these words, in a session of its own: Ctrl-C reaches this process alone."""
    return subprocess.Popen([sys.executable, *command], start_new_session=True)


def missing_speech(steps: Sequence[Step]) -> dict[Path, str]:
    """Folders of speech that are not there, and how to get them."""
    read = dict.fromkeys(path for step in steps for path in step.reads)
    return {path: SPEECH[str(path)] for path in read if str(path) in SPEECH and not path.is_dir()}


def commits(steps: Sequence[Step]) -> list[str]:
    """The commits that the finished runs of some steps were trained at, each shortened to eight digits."""
    runs = [step.makes for step in steps if step.kind is Kind.train and step.makes is not None]
    records = [run_file.record(run) for run in runs if RunFolder(run).is_run()]
    return sorted({record.commit[:8] for record in records if record is not None})
