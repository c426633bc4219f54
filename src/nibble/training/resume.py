"""Resumes a run where it stopped.

resume=RUN_DIR or resume=FILE.ckpt: with the options that run was started with.
resume=true: with the options given; their run is looked for, and is started if there is none.
"""

from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from nibble import distributed
from nibble.config import Config, from_plain
from nibble.errors import UserError
from nibble.runs import run_file
from nibble.runs.checkpoint_file import read_checkpoint
from nibble.runs.locate import beside
from nibble.runs.run_folder import RUN_FILE, RunFolder


def resumed(config: Config) -> Config:
    """The configuration to train: `config`, or that of the run that `config.resume` resumes.

    Its `run_dir` is where, and its `resume` the checkpoint to go on from; None begins at the first step.

    Raises:
        UserError: there is no such run, its files are damaged, or a new one would overwrite another.
    """
    own = Path(config.run_dir)
    if config.resume is None:
        _check_unused(own)
        return config
    if config.resumes_itself:
        folder = run_file.find(config)
        if folder is None:
            _check_unused(own)
            return replace(config, resume=None)
        checkpoint = RunFolder(folder).last_checkpoint
        if folder.resolve() != own.resolve():
            with suppress(OSError):  # not empty, or not there: then it isn't the folder that Hydra has just made
                own.rmdir()
    else:
        folder = run_folder(config.resume)
        checkpoint = Path(config.resume)
        if not checkpoint.is_file():
            checkpoint = RunFolder(folder).last_checkpoint
        config = _saved(folder, checkpoint)
    if not checkpoint.is_file():
        return replace(config, run_dir=str(folder), resume=None)
    if config.resumes_itself:
        read_checkpoint(checkpoint)  # what is damaged is said before anything is prepared
    return replace(config, run_dir=str(folder), resume=str(checkpoint))


def run_folder(resume: str) -> Path:
    """The run folder that `resume=` names, by itself or by a checkpoint in it.

    Raises:
        UserError: there is no such run.
    """
    path = Path(resume)
    if path.is_file():
        return RunFolder.of(path.resolve()).path
    if RunFolder(path).is_run():
        return path.resolve()
    why = f"has no {RUN_FILE} and no checkpoints/last.ckpt" if path.is_dir() else "does not exist"
    raise UserError(
        f"resume={resume} is no run: it {why}{beside(path, folders=True)}. Give a run folder such as runs/demo/…, "
        "a .ckpt file, or resume=true for the run of these options"
    )


def _saved(folder: Path, checkpoint: Path) -> Config:
    """The configuration that the run in `folder` was started with."""
    if checkpoint.is_file():
        return from_plain(read_checkpoint(checkpoint)["nibble"]["config"])
    run = run_file.read(folder)  # it stopped before its first checkpoint
    assert run is not None
    return from_plain(run.config)


def _check_unused(folder: Path) -> None:
    """Raise `UserError` if there is a run in `folder`: its checkpoints would be mixed with those of a new one."""
    is_first = distributed.started()[0] == 0  # the other processes find the run of the first one there
    if is_first and RunFolder(folder).is_run():
        raise UserError(
            f"there is a run in {folder} already: go on with it, resume={folder}, or give another hydra.run.dir"
        )
