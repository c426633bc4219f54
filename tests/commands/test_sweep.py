"""Sweeps: killed and resumed, with jobs that fail, on other launchers, and by Optuna."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from tiny_options import WITH_CTC

from nibble import composition
from nibble.commands import hydra_command, sweep
from nibble.commands.sweep import State
from nibble.errors import UserError
from nibble.runs import records

ROOT = Path(__file__).parents[2]
CONF = ROOT / "conf"
TINY = [*WITH_CTC, "name=tiny", "trainer.validate_every_steps=99"]


@pytest.fixture
def options(tiny_corpus) -> list[str]:
    return [*TINY, f"data.corpus_dir={tiny_corpus}"]


def command(*words: str) -> list[str]:
    return [sys.executable, str(ROOT / "train.py"), *words]


def run(cwd: Path, *words: str) -> subprocess.CompletedProcess:
    return subprocess.run(command(*words), cwd=cwd, capture_output=True, text=True, timeout=600)


def wait_for(cwd: Path, pattern: str, process: subprocess.Popen) -> Path:
    deadline = time.monotonic() + 600
    while not (found := list(cwd.glob(pattern))):
        assert process.poll() is None, "the sweep ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return found[0]


def test_a_killed_sweep_goes_on_where_it_stood(options, tmp_path):
    """Of four jobs one is complete, one fails, one is killed in the middle, and one fails after that."""
    words = ["-m", *options, "trainer.max_steps=24", "trainer.checkpoint_every_steps=2", "seed=1,2", "model.heads=2,5"]
    process = subprocess.Popen(command(*words), cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    killed = wait_for(tmp_path, "runs/tiny/*_sweep/float_seed2_2/checkpoints/last.ckpt", process)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert torch.load(killed, weights_only=True)["global_step"] < 24
    folder = killed.parents[2]
    done = folder / "float_seed1_0/checkpoints/last.ckpt"
    written = done.stat().st_mtime_ns

    again = run(tmp_path, *words, "resume=true")

    assert again.returncode == 1, again.stderr
    assert done.stat().st_mtime_ns == written, "a complete job was trained again"
    assert torch.load(killed, weights_only=True)["global_step"] == 24
    first, second = records.read(tmp_path / "runs/records.jsonl")
    assert [first.seed, second.seed] == [1, 2]
    jobs = sweep.read(max(tmp_path.glob("runs/tiny/*_sweep*")))
    assert [job.state for job in jobs] == [State.complete, State.failed, State.complete, State.failed]
    assert {Path(job.folder).parent.name for job in jobs if job.folder} == {folder.name}, "they went on elsewhere"
    assert "model.heads=5 does not divide model.width=48" in jobs[3].problem
    assert "Traceback" not in again.stderr
    table = again.stdout[again.stdout.index("jobs of the sweep") :]
    assert re.search(r"failed +seed=2 model\.heads=5\n", table)
    assert re.search(rf"\nfloat +{100 * (first.wer + second.wer) / 2:.2f} ", table)
    assert "to go on with what is not complete: python" in table


@pytest.mark.parametrize("launcher", ["joblib", "submitit_local"])
def test_jobs_in_other_processes(options, tmp_path, launcher):
    pytest.importorskip(f"hydra_plugins.hydra_{launcher.partition('_')[0]}_launcher")
    done = run(
        tmp_path,
        "-m",
        f"hydra/launcher={launcher}",
        *options,
        "hardware.workers=1",
        "trainer.max_steps=1",
        "model.heads=5,2",
    )
    assert done.returncode == 1, done.stderr
    states = [job.state for job in sweep.read(next(tmp_path.glob("runs/tiny/*_sweep")))]
    assert states == [State.failed, State.complete]
    (record,) = records.read(tmp_path / "runs/records.jsonl")
    assert record.command.startswith("python train.py ")
    assert "name=tiny" in record.command.split()


def test_optuna_searches_by_the_dev_error_rate(options, tmp_path):
    pytest.importorskip("optuna")
    words = ["hparams_search=schedule", "hydra.sweeper.n_trials=2", *options, "quant=int8", "trainer.max_steps=2"]
    done = run(tmp_path, *words)
    assert done.returncode == 0, done.stderr
    assert len({record.config_hash for record in records.read(tmp_path / "runs/records.jsonl")}) == 2
    best = OmegaConf.load(next(tmp_path.glob("runs/tiny/*_sweep/optimization_results.yaml")))
    rates = {record.wer for record in records.read(tmp_path / "runs/records.jsonl")}
    assert best.best_value == min(rates)
    assert 0.2 <= best.best_params["schedule.phases.1.at"] <= 0.55
    refused = run(tmp_path, *words, "data.dev_parts=[test-tiny]")
    assert refused.returncode == 1
    assert "data.dev_parts has test-tiny" in refused.stderr


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("quant=float,itn8", "no quant=itn8; nearest: int8"),
        ("sed=1,2", "no option 'sed'.*seed"),
        ("seed=1,a", "seed: "),
    ],
)
def test_slips_in_a_sweep_are_found_before_it_starts(word, expected):
    composition.register_schemas()
    with pytest.raises(UserError, match=expected):
        composition.check_command_line(CONF, "train", ["model=conformer_s,conformer_m", word])


def test_every_launcher_composes_with_the_hardware_it_is_for():
    composition.register_schemas()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        for launcher in ("joblib", "submitit_local", "submitit_slurm", "slurm", "ray"):
            if launcher == "ray":
                pytest.importorskip("hydra_plugins.hydra_ray_launcher")
            given = [f"hydra/launcher={launcher}", "hardware=slurm", "run_dir=unused"]
            composed = compose("train", overrides=given, return_hydra_config=True)
            if launcher == "slurm":
                wanted = composed.hydra.launcher
                assert (wanted.nodes, wanted.tasks_per_node, wanted.gpus_per_node) == (1, 8, 8)


def test_a_plugin_that_is_not_installed_says_what_to_install():
    base = OmegaConf.create()
    for text, extra in (
        ("Could not find 'hydra/launcher/ray'\n\nAvailable options", r"hydra/launcher=ray .* pip install -e \.\[ray\]"),
        ("In 'hydra/launcher/slurm': Could not find 'hydra/launcher/submitit_slurm'", r"\[sweep\]"),
        ("In 'hparams_search/schedule': Could not find 'hydra/sweeper/optuna'", r"\[sweep\]"),
        ("Could not find 'hydra/launcher/jobli'", "no hydra/launcher=jobli; nearest: joblib"),
    ):
        with pytest.raises(UserError, match=extra):
            raise UserError(composition.explain(ValueError(text), base, CONF))


def test_a_launcher_that_is_not_installed():
    composition.register_schemas()
    if find_spec("hydra_plugins.hydra_ray_launcher"):
        pytest.skip("Ray's launcher is installed")
    with pytest.raises(UserError, match=r"hydra/launcher=ray needs a package: pip install -e \.\[ray\]"):
        composition.check_command_line(CONF, "train", ["hydra/launcher=ray"])


def test_folders_of_runs_that_start_in_the_same_second(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train.py"])
    name = str(tmp_path / "runs/tiny/now_int4_seed1")
    folders = [hydra_command.new_folder(name, "hydra.run.dir", ["seed=1"]) for _ in range(3)]
    assert [folder.name for folder in folders] == ["now_int4_seed1", "now_int4_seed1_2", "now_int4_seed1_3"]
    assert sys.argv[-1] == f"hydra.run.dir={folders[2]}"
    assert hydra_command.new_folder("given", "hydra.run.dir", ["hydra.run.dir=given"]) == Path("given")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot create .*hydra\.run\.dir=DIR"):
        hydra_command.new_folder(str(tmp_path / "file/run"), "hydra.run.dir", [])


def test_a_job_without_an_end_was_killed(tmp_path, capsys):
    def main() -> None:
        job = {"number": 0, "overrides": ["seed=1"], "state": "started", "folder": "", "problem": ""}
        (tmp_path / sweep.FILE).write_text(json.dumps(job) + "\n")
        raise RuntimeError("a worker process has gone")

    assert sweep.run(main, tmp_path) == 1
    shown = capsys.readouterr()
    assert "the sweep ended early: RuntimeError: a worker process has gone" in shown.err
    assert "killed" in shown.out
