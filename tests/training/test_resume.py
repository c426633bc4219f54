"""A killed run that is resumed ends bit for bit where one that was never killed ends."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
STEPS = 40


def command(folder: Path, *overrides: str) -> list[str]:
    return [sys.executable, str(ROOT / "train.py"), f"hydra.run.dir={folder}", *overrides]


def start(folder: Path, overrides: list[str], cwd: Path) -> subprocess.Popen:
    return subprocess.Popen(
        command(folder, *overrides), cwd=cwd, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def wait_for(path: Path, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 900
    while not path.exists():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline, f"{path} never appeared"
        time.sleep(0.02)


def load(folder: Path) -> dict:
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)


@pytest.fixture(scope="module")
def options(tiny_overrides, tmp_path_factory):
    """The overrides, the working folder, and the last checkpoint of a run that nothing disturbed."""
    cwd = tmp_path_factory.mktemp("resume")
    overrides = [
        *tiny_overrides,
        "quant=int4",
        "schedule.phases=[{at: 0, precision: float}, {at: 0.2, precision: int8}, "
        "{at: 0.3, precision: rules, ramp: 0.4}]",
        f"trainer.max_steps={STEPS}",
        "trainer.validate_every_steps=20",
        "trainer.checkpoint_every_steps=5",
        "trainer.ema_decay=0.9",
        "model.dropout=0.1",
        "data.spec_augment.time_masks=2",
        "data.speed_perturbation=true",
        "hardware.max_batch_utterances=3",
        "hardware.workers=1",
    ]
    whole = cwd / "whole"
    done = subprocess.run(command(whole, *overrides), cwd=cwd, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    return overrides, cwd, load(whole)


def assert_same_end(resumed: dict, whole: dict) -> None:
    assert resumed["global_step"] == whole["global_step"] == STEPS
    for name, tensor in whole["state_dict"].items():
        assert torch.equal(tensor, resumed["state_dict"][name]), name
    for mine, theirs in zip(
        resumed["optimizer_states"][0]["state"].values(), whole["optimizer_states"][0]["state"].values(), strict=True
    ):
        assert all(torch.equal(mine[key], theirs[key]) for key in theirs)


def resume(folder: Path, cwd: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "train.py"), f"resume={folder}"],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr


def test_sigkill_in_mid_epoch(options):
    overrides, cwd, whole = options
    folder = cwd / "killed"
    process = start(folder, overrides, cwd)
    wait_for(folder / "checkpoints" / "last.ckpt", process)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert load(folder)["global_step"] < STEPS, "the run ended before it could be killed"
    resume(folder, cwd)
    assert_same_end(load(folder), whole)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_all_processes_saves_and_says_how_to_go_on(options, number):
    """A terminal sends Ctrl-C, and a scheduler SIGTERM, to the loader processes too."""
    overrides, cwd, whole = options
    folder = cwd / number.name
    process = start(folder, overrides, cwd)
    wait_for(folder / "checkpoints" / "last.ckpt", process)
    os.killpg(process.pid, number)
    stderr = process.stderr.read()
    assert process.wait() == 128 + number
    assert f"python train.py resume={folder}" in "".join(stderr.split("\n")), stderr
    assert load(folder)["global_step"] < STEPS
    resume(folder, cwd)
    assert_same_end(load(folder), whole)


def test_resume_takes_no_other_options(options):
    _, cwd, _ = options
    done = subprocess.run(
        command(cwd / "x", f"resume={cwd / 'whole'}", "quant=int8"),
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1
    assert "drop quant=int8" in done.stderr
