"""Finds finished runs at or below the paths that a user names."""

import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from nibble.config import Config, from_plain
from nibble.errors import UserError
from nibble.model.options import ModelConfig
from nibble.plain import parse
from nibble.runs import run_file
from nibble.runs.description import DESCRIPTION
from nibble.runs.locate import runs_below
from nibble.runs.run_folder import RunFolder


@dataclass(frozen=True)
class Run:
    """A finished run."""

    folder: Path
    name: str  # its folder, without the leading part that all runs of a report share
    settings: dict[str, Any]  # plain, as the version that trained it wrote them
    config: Config  # the same, with the defaults of options that came later
    finished_s: float  # when its bundle was written, in seconds since 1970
    sizes: tuple[ModelConfig, ...] = ()  # smaller networks of the run: `model.sizes`

    @property
    def command(self) -> str | None:
        """The command that starts this run again; None if `train.py` did not start it."""
        if (run := run_file.read(self.folder)) is not None:
            return run.command
        overrides = RunFolder(self.folder).overrides  # for a run older than run.json
        if not overrides.is_file():
            return None
        given = OmegaConf.load(overrides)
        return shlex.join(["python", "train.py", *(str(override) for override in given)])


def find_runs(paths: Sequence[Path]) -> tuple[list[Run], list[Path]]:
    """The finished runs at or below `paths` in the order of their names, and the folders of those not finished.

    Raises:
        UserError: a path is no run and has none below it, or is a run that is not finished.
    """
    folders = {folder.resolve(): folder for path in paths for folder in runs_below(path)}
    finished = [folder for folder in folders.values() if run_file.is_finished(folder)]
    for path in paths:
        if RunFolder(path).is_run() and not run_file.is_finished(path):
            raise UserError(f"{path} is not finished. To go on: python train.py resume={path}")
    if not finished:
        raise UserError(
            f"no run below {', '.join(map(str, paths))} is finished; to go on with one: "
            f"python train.py resume={next(iter(folders.values()))}"
        )
    common = Path(os.path.commonpath([folder.parent for folder in finished]))
    runs = [_read(folder, str(folder.relative_to(common))) for folder in sorted(finished)]
    return runs, sorted(set(folders.values()) - set(finished))


def _read(folder: Path, name: str) -> Run:
    described = RunFolder(folder).bundle / DESCRIPTION
    try:
        settings = parse(described.read_bytes())["config"]
        return Run(folder, name, settings, from_plain(settings), described.stat().st_mtime, _sizes(folder))
    except (KeyError, TypeError, OSError, UserError) as error:
        raise UserError(f"{described} cannot be read: {error}; leave this run out, or train it again") from error


def _sizes(folder: Path) -> tuple[ModelConfig, ...]:
    """Of the configuration that was trained: the bundle has that of the whole network."""
    run = run_file.read(folder)
    if run is None or not run.config.get("model", {}).get("sizes"):
        return ()
    model = from_plain(run.config).model
    return tuple(model.at_size(size.name) for size in model.sizes)
