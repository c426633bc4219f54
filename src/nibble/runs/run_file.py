"""run.json of a run folder: which run lives there and, once it is complete, what it was worth."""

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
from nibble.runs import records
from nibble.runs.records import Record
from nibble.plain import build, parse
from nibble.writing import write_text

NAME = "run.json"
LOCK = ".lock"


@dataclass(frozen=True)
class RunFile:
    """What stands in run.json."""

    identity: str  # equal for runs that give the same result
    command: str
    config: dict[str, Any]  # of `nibble.config.plain`
    record: dict[str, Any] | None = None  # of the evaluation at the end; None until then


def identity(config: Config) -> str:
    """The hash of all options but those that don't change the result, with the folders that speech comes from.

    In records those folders don't count, because the same corpus may lie anywhere. Here they do: what looks like
    another corpus is trained on rather than skipped.
    """
    data = config.data
    trainer = replace(config.trainer, checkpoint_every_steps=None, log_layers_every_steps=0)
    same = plain(replace(config, records=None, trainer=trainer))
    return provenance.config_hash({**same, "speech": [data.corpus_dir, data.fsdd_dir, data.noise.dir]})


def begin(folder: Path, config: Config) -> None:
    """Write run.json of a run that starts in `folder`, or goes on there: then its command stays that of its start."""
    earlier = read(folder)
    command = provenance.command() if earlier is None else earlier.command
    _write(folder, RunFile(identity(config), command, plain(config)))


def complete(folder: Path, found: dict[str, Any]) -> None:
    """Add the record that makes the run in `folder` complete."""
    run = read(folder)
    assert run is not None
    _write(folder, replace(run, record=found))


def read(folder: Path) -> RunFile | None:
    """run.json of `folder`; None if there is none.

    Raises:
        UserError: it is damaged.
    """
    path = folder / NAME
    if not path.is_file():
        return None
    try:
        return build(RunFile, parse(path.read_bytes()))
    except UserError as error:
        raise _damaged(path, error) from error


def record(folder: Path) -> Record | None:
    """What the run in `folder` was worth; None until it is complete.

    Raises:
        UserError: run.json is damaged.
    """
    run = read(folder)
    try:
        return None if run is None or run.record is None else records.from_plain(run.record)
    except UserError as error:
        raise _damaged(folder / NAME, error) from error


def _damaged(path: Path, error: UserError) -> UserError:
    return UserError(f"{path} is damaged: {error}; delete it: resume={path.parent} goes by the checkpoint then")


def find(config: Config, runs: Path = Path("runs")) -> Path | None:
    """The folder of a run with the result of `config`: its own, or one below `runs`; None if there is none.

    Of several, a complete one before one that has a checkpoint, then the one begun last.
    """
    wanted = identity(config)
    places = {Path(config.run_dir) / NAME, *runs.glob(f"*/*/{NAME}"), *runs.glob(f"*/*/*/{NAME}")}
    found = [
        (run.record is not None, last_checkpoint(path.parent).is_file(), path.stat().st_mtime, path.parent)
        for path in places
        if (run := read(path.parent)) is not None and run.identity == wanted
    ]
    return max(found)[-1] if found else None


def last_checkpoint(folder: Path) -> Path:
    """Where the checkpoint lies that a run in `folder` goes on from."""
    return folder / "checkpoints" / "last.ckpt"


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Inside, no other process trains in `folder`; the claim of a killed process ends with it.

    Raises:
        UserError: another process does.
    """
    lock = FileLock(folder / LOCK)
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
    try:
        write_text(folder / NAME, json.dumps(asdict(run), ensure_ascii=False, indent=1))
    except OSError as error:
        raise UserError(
            f"cannot write {folder / NAME}: {error.strerror}. Free space or permit writing there"
        ) from error
