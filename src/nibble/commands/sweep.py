"""Runs a sweep: follows each job, and prints tables at the end.

Hydra's launchers may run a job in this process, in others or on other machines. So each job writes its state to a line
of jobs.jsonl in the folder of the sweep, where the process that started the sweep reads it.
"""

import os
import shlex
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig

from nibble import distributed, provenance
from nibble.composition import typed
from nibble.errors import Interrupted, UserError
from nibble.plain import build_lines
from nibble.runs import records, run_file
from nibble.runs.records import Record
from nibble.terminal import Console, Table

FILE = "jobs.jsonl"


class State(StrEnum):
    """How far a job has come."""

    started = "started"  # when the sweep has ended: killed
    complete = "complete"
    failed = "failed"


@dataclass(frozen=True)
class Job:
    """A line of jobs.jsonl; the last one of a job counts."""

    number: int
    overrides: list[str]
    state: State
    folder: str = ""  # of the run, if it is complete
    problem: str = ""


class JobLog(Callback):
    """Writes jobs.jsonl: `hydra.callbacks` of train.yaml. A single run has none."""

    def on_job_start(self, config: DictConfig, **_: Any) -> None:
        """A job begins."""
        if _tells(config):
            words = ["python", f"{config.hydra.job.name}.py", *config.hydra.overrides.task]
            os.environ[provenance.COMMAND] = shlex.join(words)
            _append(config, State.started)

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **_: Any) -> None:
        """A job ends by itself."""
        if not _tells(config):
            return
        os.environ.pop(provenance.COMMAND, None)
        if job_return.status == JobStatus.COMPLETED:
            folder = run_file.find(typed(job_return.cfg)) if job_return.cfg is not None else None
            _append(config, State.complete, folder=str(folder or ""))
            return
        error = job_return._return_value  # the property prints, and raises it
        if isinstance(error, UserError):
            _append(config, State.failed, problem=str(error))
        else:
            traceback.print_exception(error)
            _append(config, State.failed, problem=f"{type(error).__name__}: {error}")


def _tells(config: DictConfig) -> bool:
    """Whether this process reports its job: only the first of those that train one run together does."""
    return bool(config.hydra.mode == RunMode.MULTIRUN) and distributed.started()[0] == 0


def _append(config: DictConfig, state: State, folder: str = "", problem: str = "") -> None:
    job = Job(int(config.hydra.job.num), list(config.hydra.overrides.task), state, folder, problem)
    records.append_line(Path(config.hydra.sweep.dir) / FILE, asdict(job), "give another folder: hydra.sweep.dir=DIR")


def check(config: DictConfig) -> None:
    """Raise `UserError` if a search for good options would choose them by a test part."""
    tested = [part for part in config.data.dev_parts or [] if part.startswith("test")]
    if tested and "optuna" in config.hydra.sweeper._target_:
        raise UserError(
            f"data.dev_parts has {', '.join(tested)}, and a search chooses by the error rate there: what was tuned on "
            "a test part can't be tested on it. Give parts for development"
        )


def run(main: Callable[[], Any], folder: Path) -> int:
    """Run all jobs of a Hydra `main` in multirun mode, then show what became of them.

    Args:
        main: of `hydra.main`, whose launcher runs the jobs.
        folder: of the sweep.

    Returns:
        the exit code: 0 if all jobs are complete.
    """
    code, problem = 0, ""
    try:
        main()
    except SystemExit as stop:  # a job was interrupted, and with it the sweep
        code = stop.code if isinstance(stop.code, int) else 1
    except Interrupted as stop:  # while no job ran
        code = stop.exit_code
    except Exception as error:  # the first failure of a job, or one of the launcher
        code, problem = 1, f"{type(error).__name__}: {error}"
    jobs = read(folder)
    states = {job.state for job in jobs}
    if problem and State.failed not in states:
        print(f"error: the sweep ended early: {problem}", file=sys.stderr)
    console = Console()
    show(jobs, console)
    if code or states != {State.complete}:
        again = provenance.command()
        again = again if "resume=true" in again else f"{again} resume=true"
        console.print(f"to go on with what is not complete: {again}", soft_wrap=True)
        return code or 1
    return 0


def read(folder: Path) -> list[Job]:
    """The state of each job of the sweep in `folder`, by number; empty if none has begun."""
    jobs = build_lines(Job, folder / FILE, "a job of a sweep", "delete that line")
    return sorted({job.number: job for job in jobs}.values(), key=lambda job: job.number)


def show(jobs: Sequence[Job], console: Console) -> None:
    """One row a job and, if the jobs differ in precision and seed alone, one a precision."""
    # Loaded here, since Hydra loads this file before it runs a job, where no error would be caught.
    from nibble.percent import percent
    from nibble.report.precisions import sections

    rows: list[list[str]] = []
    found: list[Record] = []
    common = set.intersection(*(set(job.overrides) for job in jobs)) if len(jobs) > 1 else set()
    for job in jobs:
        record = _record(job)
        if record is not None:
            found.append(record)
        state = "killed" if job.state is State.started else job.state.value
        wer = "" if record is None else percent(record.wer)
        own = " ".join(override for override in job.overrides if override not in common)
        rows.append([str(job.number), state, wer, own, job.folder or job.problem])
    header = ("job", "state", "dev WER", "options", "folder, or what was wrong")
    console.print(Table(header, rows, left=len(header), title="jobs of the sweep"))
    if found and len({_cell(record) for record in found}) == len(found):
        for section in sections(found):
            console.print(Table(section.columns, section.rows, title=section.title))


def _record(job: Job) -> Record | None:
    return run_file.record(Path(job.folder)) if job.folder else None


def _cell(record: Record) -> tuple[object, ...]:
    """The options by which a row's runs differ from other rows."""
    return record.experiment, record.corpus, record.part, record.model, record.quant, record.method, record.seed
