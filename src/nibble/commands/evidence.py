"""Run what the tables of the README come from, one command after another, and publish it.

python -m nibble.commands.evidence list=true             what is done, what is left and how long that takes
python -m nibble.commands.evidence trial=true            every command in small, below runs/trial: does all of it run?
python -m nibble.commands.evidence threads=1             all that is left; stopped, the same words go on
python -m nibble.commands.evidence only=[digits,demo]    some tables
"""

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nibble import stopping
from nibble.commands.words import run_words
from nibble.errors import UserError, nearest
from nibble.evidence import tables
from nibble.evidence.progress import Progress, State, commits, missing_speech
from nibble.evidence.steps import Kind, Place, Step, steps
from nibble.ranges import Range, check
from nibble.report.publishing import publish
from nibble.terminal import Console, Table


@dataclass
class EvidenceOptions:
    """The options of `python -m nibble.commands.evidence`."""

    only: list[str] = field(default_factory=list)  # tables to work on; none: all
    list: bool = False  # say what is left, and run nothing
    threads: int | None = None  # hardware.threads of each command; null: torch's choice
    trial: bool = False  # trainings of four steps, evaluations of four utterances; nothing is published

    def __post_init__(self) -> None:
        check(self, "", threads=Range(1, 4_096))
        known = [table.experiment for table in tables.TABLES]
        for name in self.only:
            if name not in known:
                raise UserError(f"only={name} is no table; nearest: {nearest(name, known)} (all: {', '.join(known)})")


def main(words: Sequence[str] | None = None) -> int:
    """Returns 0, or 1 if something failed or is left."""
    return run_words(_run, EvidenceOptions, __doc__, words)


def _run(options: EvidenceOptions) -> int:
    if not Path("train.py").is_file():
        raise UserError("train.py is not here; run this in the folder of the repository")
    place = Place(Path("runs/trial" if options.trial else "runs/evidence"), options.threads, options.trial)
    chosen = [table for table in tables.TABLES if not options.only or table.experiment in options.only]
    planned = {table.experiment: steps(table, place) for table in chosen}
    progress = Progress(place)
    console = Console()
    console.print(overview(planned, progress))
    for folder, cure in missing_speech([step for some in planned.values() for step in some]).items():
        console.print(f"{folder} is not there: {cure}")
    if options.list:
        for step in (step for some in planned.values() for step in some if progress.state(step) is not State.done):
            print(f"python {shlex.join(step.next_command)}")
        return 0
    failed = [step for some in planned.values() for step in run_left(some, progress)]
    for step in failed:
        console.print(f"failed: {step.table}, {step.kind.value} {step.name}: python {shlex.join(step.next_command)}")
    whole = [name for name, some in planned.items() if all(progress.state(step) is State.done for step in some)]
    left = [name for name in planned if name not in whole]
    if whole and not options.trial:
        for line in publish([place.folder / name for name in whole], place.records):
            print(line)
        print("python -m nibble.report")
    if left:
        console.print(f"not whole: {', '.join(left)}; the same command goes on")
    return 1 if left else 0


def run_left(planned: Sequence[Step], progress: Progress) -> list[Step]:
    """Run what is left of a table's steps; those that failed."""
    failed = []
    for step in planned:
        if progress.state(step) is not State.left:
            continue
        print(f"== {step.table}, {step.kind.value} {step.name}\npython {shlex.join(step.next_command)}", flush=True)
        if not progress.run(step):
            print(f"== failed; what does not need it goes on: {step.name}", file=sys.stderr, flush=True)
            failed.append(step)
    return failed


def overview(planned: dict[str, list[Step]], progress: Progress) -> Table:
    """A row for each table: what is done, at which commits, and the hours that are left."""
    rows = []
    total_h = 0.0
    for name, some in planned.items():
        left = [step for step in some if progress.state(step) is not State.done]
        hours = sum(map(progress.minutes, left)) / 60
        total_h += hours
        cells = []
        for kinds in ((Kind.train,), tuple(kind for kind in Kind if kind is not Kind.train)):
            those = [step for step in some if step.kind in kinds]
            done = sum(progress.state(step) is State.done for step in those)
            cells.append(f"{done} of {len(those)}")
        rows.append([name, *cells, f"{hours:.1f} h", ", ".join(commits(some))])
    header = ("table", "trainings", "other steps", "left, about", "trained at commit")
    note = f"In all about {total_h:.1f} hours are left, on two quiet cores."
    return Table(header, rows, left=1, title="Evidence", note=note)


def run() -> None:
    """Run the command line."""
    stopping.run(main)


if __name__ == "__main__":
    run()
