"""run.json of a run folder: the identity of the run and, once it is finished, its evaluation."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from nibble import provenance
from nibble.config import Config, plain
from nibble.errors import UserError
from nibble.plain import build, parse
from nibble.runs import records
from nibble.runs.bundle import is_bundle
from nibble.runs.locate import RUNS, run_files
from nibble.runs.records import Record
from nibble.runs.run_folder import RunFolder
from nibble.writing import write_text


@dataclass(frozen=True)
class RunFile:
    """The contents of run.json."""

    identity: str  # equal for runs that give the same result
    command: str
    config: dict[str, Any]  # of `nibble.config.plain`
    record: dict[str, Any] | None = None  # of the evaluation at the end; None until then


def identity(config: Config) -> str:
    """The hash of all options but those that don't change the result, with the folders that speech comes from.

    In records those folders don't count, because a corpus may lie anywhere. Here they count: what looks like
    another corpus is trained on rather than skipped.
    """
    data = config.data
    trainer = replace(config.trainer, checkpoint_every_steps=None, log_layers_every_steps=0)
    same = plain(replace(config, records=None, trainer=trainer))
    return provenance.config_hash({**same, "speech": [data.corpus_dir, data.fsdd_dir, data.noise.dir]})


def begin(folder: Path, config: Config) -> None:
    """Write run.json of a run that starts in `folder` or is resumed there; a resumed run keeps its first command."""
    earlier = read(folder)
    command = provenance.command() if earlier is None else earlier.command
    _write(folder, RunFile(identity(config), command, plain(config)))


def complete(folder: Path, found: dict[str, Any]) -> None:
    """Add the record that makes the run in `folder` finished."""
    run = read(folder)
    assert run is not None
    _write(folder, replace(run, record=found))


def read(folder: Path) -> RunFile | None:
    """run.json of `folder`; None if there is none.

    Raises:
        UserError: it is damaged.
    """
    path = RunFolder(folder).run_file
    if not path.is_file():
        return None
    try:
        return build(RunFile, parse(path.read_bytes()))
    except UserError as error:
        raise _damaged(path, error) from error


def record(folder: Path) -> Record | None:
    """The evaluation at the end of the run in `folder`; None until it is finished.

    Raises:
        UserError: run.json is damaged.
    """
    run = read(folder)
    try:
        return None if run is None or run.record is None else records.from_plain(run.record)
    except UserError as error:
        raise _damaged(RunFolder(folder).run_file, error) from error


def _damaged(path: Path, error: UserError) -> UserError:
    return UserError(f"{path} is damaged: {error}; delete it: resume={path.parent} goes by the checkpoint then")


def is_finished(folder: Path) -> bool:
    """Whether the run in `folder` is trained and evaluated; one from before run.json is when it has a bundle.

    Raises:
        UserError: run.json is damaged.
    """
    run = read(folder)
    return is_bundle(RunFolder(folder).bundle) if run is None else run.record is not None


def find(config: Config, runs: Path = RUNS) -> Path | None:
    """The folder of a run with the result of `config`: its own, or one below `runs`; None if there is none.

    Finished runs come first, then those with a checkpoint, then the one that began last.
    """
    wanted = identity(config)
    folders = {Path(config.run_dir), *(file.parent for file in run_files(runs))}
    found = [
        (run.record is not None, place.last_checkpoint.is_file(), place.run_file.stat().st_mtime, place.path)
        for place in map(RunFolder, folders)
        if (run := read(place.path)) is not None and run.identity == wanted
    ]
    return max(found)[-1] if found else None


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Inside, no other process can train in `folder`; the lock ends with its process, even if that is killed.

    Raises:
        UserError: another process does.
    """
    lock = FileLock(RunFolder(folder).lock)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise UserError(
            f"another process is training in {folder}; wait until it ends, or start a run of its own in another folder"
        ) from error
    try:
        yield
    finally:
        lock.release()


def _write(folder: Path, run: RunFile) -> None:
    write_text(RunFolder(folder).run_file, json.dumps(asdict(run), ensure_ascii=False, indent=1))
