"""Which run lives in a folder, and what `resume=` and a new run make of that."""

import csv
import os
from dataclasses import replace
from pathlib import Path

import pytest
from filelock import FileLock

from nibble.errors import UserError
from nibble.runs import records, run_file
from nibble.runs.run_folder import RUN_FILE
from nibble.training.resume import resumed, run_folder
from nibble.training.run import train

SHORT = ["trainer.max_steps=4", "trainer.validate_every_steps=99", "trainer.checkpoint_every_steps=2"]


def test_what_tells_runs_apart(make_config):
    config = make_config()
    mine = run_file.identity(config)
    assert run_file.identity(replace(config, run_dir="elsewhere", resume="true")) == mine
    for same in ("hardware.workers=3", "logger=tensorboard", "records=other.jsonl", "trainer.checkpoint_every_steps=7"):
        assert run_file.identity(make_config(same)) == mine, same
    for other in ("seed=2", "quant=int4", "name=other", "trainer.max_steps=5", "data.corpus_dir=elsewhere"):
        assert run_file.identity(make_config(other)) != mine, other


def test_the_complete_run_is_found_before_the_stopped_one(make_config):
    config = make_config("resume=true")
    assert config.resumes_itself
    assert run_file.find(config) is None
    for age, name in enumerate(
        ["runs/tiny/complete", "runs/tiny/a_sweep/begun", "runs/tiny/stopped", "runs/tiny/other"]
    ):
        folder = Path(name)
        (folder / "checkpoints").mkdir(parents=True)
        run_file.begin(folder, make_config("seed=2") if folder.name == "other" else config)
        os.utime(folder / RUN_FILE, (age, age))
    assert run_file.find(config) == Path("runs/tiny/stopped")
    (Path("runs/tiny/a_sweep/begun") / "checkpoints/last.ckpt").touch()
    assert run_file.find(config) == Path("runs/tiny/a_sweep/begun")
    run_file.complete(Path("runs/tiny/complete"), {"wer": 0.5})
    assert run_file.find(config) == Path("runs/tiny/complete")


def test_resume_true_starts_goes_on_and_leaves_alone(make_config, train_until):
    config = make_config(*SHORT, "resume=true", "run_dir=runs/tiny/first")
    train_until(2, config)
    again = make_config(*SHORT, "resume=true", "run_dir=runs/tiny/second", "records=null")
    Path("runs/tiny/second").mkdir()
    going_on = resumed(again)
    assert going_on.run_dir == "runs/tiny/first"
    assert going_on.resume == "runs/tiny/first/checkpoints/last.ckpt"
    assert not Path("runs/tiny/second").exists(), "an empty folder is left behind"
    record = train(again)
    with Path("runs/tiny/first/csv/metrics.csv").open(newline="") as file:
        steps = [row["step"] for row in csv.DictReader(file) if row["train_loss"]]
    assert steps == ["0", "2", "3"], "a stop loses the point of its own step, and no other"
    written = Path("runs/tiny/first/checkpoints/last.ckpt").stat().st_mtime_ns
    assert not Path("runs/records.jsonl").exists()
    # Killed after the evaluation, before its record was added: it is added, once, and nothing is trained.
    for _ in range(2):
        assert train(config) == record
    assert [kept.wer for kept in records.read(Path("runs/records.jsonl"))] == [record["wer"]]
    assert Path("runs/tiny/first/checkpoints/last.ckpt").stat().st_mtime_ns == written


def test_a_run_stopped_before_its_first_checkpoint_begins_again(make_config):
    config = make_config("seed=7", "run_dir=runs/tiny/first")
    Path(config.run_dir).mkdir(parents=True)
    run_file.begin(Path(config.run_dir), config)
    found = resumed(replace(config, run_dir="unused", seed=1, resume="runs/tiny/first"))
    assert (found.seed, found.resume, Path(found.run_dir).name) == (7, None, "first")


def test_resume_false_is_a_new_run(make_config):
    assert make_config("resume=false").resume is None


def test_a_folder_that_is_no_run(tmp_path):
    (tmp_path / "runs/demo/2026-01-31_float").mkdir(parents=True)
    with pytest.raises(UserError, match=r"is no run: it has no run\.json and no checkpoints/last\.ckpt"):
        run_folder(str(tmp_path / "runs/demo"))
    with pytest.raises(UserError, match=r"is no run: it does not exist; in .*demo there is: 2026-01-31_float"):
        run_folder(str(tmp_path / "runs/demo/2026-01-31_flaot"))


def test_a_new_run_does_not_overwrite_another(make_config):
    config = make_config()
    Path(config.run_dir).mkdir(parents=True)
    run_file.begin(Path(config.run_dir), config)
    with pytest.raises(UserError, match=r"there is a run in runs/tiny already: .*resume=runs/tiny"):
        train(config)


def test_two_processes_in_one_folder(tmp_path):
    def claim() -> None:
        with run_file.claimed(tmp_path):
            pass

    with FileLock(tmp_path / ".lock"), pytest.raises(UserError, match="another process is training in"):
        claim()
    claim()


def test_a_damaged_run_file(tmp_path):
    (tmp_path / RUN_FILE).write_text("{")
    with pytest.raises(UserError, match=r"run\.json is damaged.*delete it"):
        run_file.read(tmp_path)
