"""Go on from where a run stopped, with the configuration it was started with."""

from dataclasses import replace
from pathlib import Path

from nibble.config import Config, from_plain
from nibble.errors import UserError
from nibble.export.checkpoint import read_checkpoint


def checkpoint_path(resume: str) -> Path:
    """The checkpoint that `resume=` names: a file, or `last.ckpt` of a run folder."""
    path = Path(resume)
    return path / "checkpoints" / "last.ckpt" if path.is_dir() else path


def run_folder(resume: str) -> Path:
    """The run folder that holds the checkpoint of `resume=`.

    Raises:
        UserError: there is no such checkpoint.
    """
    path = checkpoint_path(resume)
    if not path.is_file():
        raise UserError(f"resume={resume}: there is no {path}. Give a run folder such as runs/demo/… or a .ckpt file")
    return path.resolve().parent.parent


def saved_config(resume: str) -> Config:
    """The configuration of the run that `resume=` names, to be continued in its own folder."""
    folder = run_folder(resume)
    saved = from_plain(read_checkpoint(checkpoint_path(resume))["nibble"]["config"])
    return replace(saved, run_dir=str(folder), resume=resume)
