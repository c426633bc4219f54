"""Finds the checkpoint, bundle or run that a user means by a path or by the name of an experiment."""

import os
from pathlib import Path

from nibble.errors import UserError, nearest
from nibble.runs.bundle import is_bundle
from nibble.runs.exported import is_exported
from nibble.runs.run_folder import CHECKPOINTS, RUN_FILE, RunFolder

RUNS = Path("runs")  # where runs lie unless hydra.run.dir says otherwise


def locate(path: Path) -> Path:
    """The checkpoint file or bundle folder that `path` stands for.

    Raises:
        UserError: there is none; the text names what is near.
    """
    if path.is_file() or is_bundle(path):
        return path
    if path.is_dir():
        kept = RunFolder(path).best_checkpoint, RunFolder(path).last_checkpoint
        for candidate in (*kept, *(path / file.name for file in kept)):  # of a run, or of its folder checkpoints/
            if candidate.is_file():
                return candidate
        raise UserError(
            f"{path} is neither a run (no checkpoints/best.ckpt or checkpoints/last.ckpt) "
            "nor a bundle (no model.safetensors)"
        )
    raise UserError(f"{path} does not exist{beside(path)}")


def bundle_of(path: Path) -> Path:
    """The bundle at `path`, or that of the run at `path`.

    Raises:
        UserError: there is none.
    """
    own = RunFolder(path).bundle
    for folder in (path, own):
        if is_bundle(folder) and not is_exported(folder):
            return folder
    raise UserError(
        f"{path} is no bundle, and has none in {own}; write one with python -m nibble.export "
        f"checkpoint={path} target=bundle"
    )


def latest_run(experiment: str, runs: Path = RUNS) -> Path:
    """The run folder of an experiment whose checkpoint was written last.

    Raises:
        UserError: no run of that experiment has a checkpoint.
    """
    files = f"**/{CHECKPOINTS}/*.ckpt"
    found = sorted((runs / experiment).glob(files), key=lambda file: file.stat().st_mtime)
    if not found:
        known = sorted({file.relative_to(runs).parts[0] for file in runs.glob(f"*/{files}")})
        hint = f"there are runs of: {nearest(experiment, known)}" if known else f"{runs} has no finished run"
        raise UserError(
            f"no run of experiment {experiment!r} has a checkpoint; {hint}. "
            f"Train one: python train.py experiment={experiment}"
        )
    return RunFolder.of(found[-1]).path


def run_files(runs: Path = RUNS) -> list[Path]:
    """run.json of each run below `runs`: of an experiment, or of a job of its sweep."""
    return [*runs.glob(f"*/*/{RUN_FILE}"), *runs.glob(f"*/*/*/{RUN_FILE}")]


def runs_below(path: Path) -> list[Path]:
    """The run folders at or below `path`.

    Raises:
        UserError: `path` is no folder, or there is none.
    """
    if not path.is_dir():
        raise UserError(f"{path} is not a folder{beside(path, folders=True)}")
    found = []
    for parent, names, _ in os.walk(path, followlinks=True):
        if RunFolder(Path(parent)).is_run():
            found.append(Path(parent))
            names.clear()  # what lies in a run belongs to it
    if not found:
        raise UserError(
            f"{path} is not a run folder, and no run lies below it: a run has checkpoints/ and, once finished, "
            "bundle/. Give runs/NAME/RUN, or runs/NAME for all runs of an experiment"
        )
    return found


def beside(path: Path, folders: bool = False) -> str:
    """A hint for a path that doesn't exist: the most similar names beside it; empty if there are none."""
    if not path.parent.is_dir():
        return ""
    names = [entry.name for entry in path.parent.iterdir() if entry.is_dir() or not folders]
    return f"; in {path.parent} there is: {nearest(path.name, names)}" if names else ""
