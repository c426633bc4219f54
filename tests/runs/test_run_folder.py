"""Where a run's files lie, which run a path means, and when a run is finished."""

from pathlib import Path

import pytest

from nibble.errors import UserError
from nibble.runs import run_file
from nibble.runs.locate import locate, run_files, runs_below
from nibble.runs.run_folder import RunFolder


@pytest.mark.parametrize(
    ("path", "run"),
    [("runs/a/checkpoints/best.ckpt", "runs/a"), ("runs/a/bundle", "runs/a"), ("best.ckpt", "."), ("a/x.ckpt", "a")],
)
def test_the_run_of_a_checkpoint_or_bundle(path: str, run: str) -> None:
    assert RunFolder.of(Path(path)).path == Path(run)


def test_every_file_lies_in_the_folder() -> None:
    run = RunFolder(Path("runs/a"))
    named = [getattr(run, name) for name, of in vars(RunFolder).items() if isinstance(of, property)]
    named += [run.phase_checkpoint(1, "float"), run.log(1), run.error(1), run.damage_table("mine")]
    assert all(file.is_relative_to(run.path) for file in named)
    assert len(set(named)) == len(named), "two files have one name"


def test_the_folder_of_checkpoints_stands_for_its_best(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.checkpoints.mkdir()
    run.last_checkpoint.touch()
    assert locate(run.checkpoints) == locate(run.path) == run.last_checkpoint
    run.best_checkpoint.touch()
    assert locate(run.checkpoints) == locate(run.path) == run.best_checkpoint


def test_a_run_is_finished_when_run_json_has_its_evaluation(compose_tiny, tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "runs" / "tiny" / "one")
    run.bundle.mkdir(parents=True)
    assert not run.is_run()
    run_file.begin(run.path, compose_tiny(run.path, tmp_path))
    (run.bundle / "model.safetensors").touch()
    assert run.is_run()
    assert not run_file.is_finished(run.path), "it was killed before its evaluation"
    run_file.complete(run.path, {"wer": 0.5})
    assert run_file.is_finished(run.path)
    assert runs_below(tmp_path) == [run.path]
    assert run_files(tmp_path / "runs") == [run.run_file]


def test_a_run_from_before_run_json_is_finished_when_it_has_a_bundle(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.checkpoints.mkdir()
    run.last_checkpoint.touch()
    assert not run_file.is_finished(run.path)
    run.bundle.mkdir()
    (run.bundle / "model.safetensors").touch()
    assert run_file.is_finished(run.path)


def test_what_is_no_run_names_what_is_near(tmp_path: Path) -> None:
    (tmp_path / "digits").mkdir()
    with pytest.raises(UserError, match=r"digit is not a folder; in .* there is: digits"):
        runs_below(tmp_path / "digit")
    with pytest.raises(UserError, match=r"digit does not exist; in .* there is: digits"):
        locate(tmp_path / "digit")
