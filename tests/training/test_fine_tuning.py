"""From float weights through a ramp into a phase that holds norms and scales still, stopped and resumed within both."""

import signal
from pathlib import Path

import pytest
import torch

from nibble.errors import Interrupted, UserError
from nibble.runs.bundle import read_bundle
from nibble.training.checkpoints import Checkpoints
from nibble.training.run import check_rules, train

OPTIONS = [
    "init_from=runs/float",
    "quant=int4_noise",  # drawn anew in each step, so that a resumed run must draw the same
    "loss.fused=false",  # its one scale for all of the joiner's output needs all of it
    "quant.rules=[{match: '**', weight: {bits: 4, learned: true}, activation: {bits: 8, static: true}}]",
    "schedule.phases=[{at: 0, precision: rules, ramp: 0.5}, "
    "{at: 0.5, precision: rules, freeze_norms: true, freeze_scales: true}]",
    "loss.norm_decay=0.1",
    "trainer.max_steps=8",
    "trainer.validate_every_steps=3",
    "hardware.max_batch_utterances=4",
]
HELD = ("running_mean", "running_var", "num_batches_tracked", "_log_scale", "activation_max")


def weights(folder: str, name: str = "last") -> dict[str, torch.Tensor]:
    return torch.load(Path(folder) / "checkpoints" / f"{name}.ckpt", weights_only=True)["state_dict"]


def stop_at(monkeypatch: pytest.MonkeyPatch, steps: list[int]) -> None:
    def on_train_batch_end(self, trainer, *_):
        original(self, trainer)
        if trainer.global_step in steps:
            steps.remove(trainer.global_step)
            raise Interrupted(signal.SIGINT)

    original = Checkpoints.on_train_batch_end
    monkeypatch.setattr(Checkpoints, "on_train_batch_end", on_train_batch_end)


def test_a_stopped_run_ends_where_one_ends_that_ran_through(make_config, monkeypatch):
    train(make_config("run_dir=runs/float", "trainer.max_steps=2", "trainer.validate_every_steps=100"))
    record = train(make_config(*OPTIONS, "run_dir=runs/whole"))
    assert (record["quant"], record["method"]) == ("int4_noise", "qat")
    assert record["backend"].startswith("native"), "noise is for training alone"
    assert read_bundle(Path("runs/whole/bundle")).quant == "int4_noise"

    stop_at(monkeypatch, [2, 6])
    stopped = make_config(*OPTIONS, "run_dir=runs/stopped")
    with pytest.raises(Interrupted):
        train(stopped)
    assert 0 < torch.load("runs/stopped/checkpoints/last.ckpt", weights_only=True)["nibble"]["blend"] < 1
    resumed = make_config("resume=runs/stopped")
    with pytest.raises(Interrupted):
        train(resumed)
    train(resumed)

    whole, other, before = weights("runs/whole"), weights("runs/stopped"), weights("runs/whole", "phase_1_rules")
    assert whole.keys() == other.keys()
    for name, tensor in whole.items():
        assert torch.equal(tensor, other[name]), name
        if name.endswith(HELD):
            assert torch.equal(tensor, before[name]), name
    assert all(tensor.any() for name, tensor in whole.items() if name.endswith(HELD)), "none stayed where it began"
    assert sum(name.endswith(HELD) for name in whole) > 30
    assert sum(not torch.equal(tensor, before[name]) for name, tensor in whole.items()) > 30

    # Training is counted from the first step of the run that it began from, stopped or not.
    start, result = (read_bundle(Path(f"runs/{name}/bundle")) for name in ("float", "whole"))
    last = torch.load("runs/stopped/checkpoints/last.ckpt", weights_only=True)["nibble"]
    best = torch.load("runs/whole/checkpoints/best.ckpt", weights_only=True)
    assert (start.step, last["step"], record["steps"]) == (2, 2 + 8, 2 + best["global_step"])
    assert 0 < start.heard_s < result.heard_s <= last["heard_s"]
    assert record["heard_h"] == pytest.approx(result.heard_s / 3600)


def test_the_schedule_for_it(make_config):
    check_rules(make_config("quant=int4", "schedule=fine_tune"))
    static = "quant.rules=[{match: '**', weight: {bits: 4}, activation: {bits: 8, static: true}}]"
    frozen = "schedule.phases=[{at: 0}, {at: 0.5, freeze_scales: true}]"
    check_rules(make_config("quant=int4", "loss.fused=false", frozen, static))
    with pytest.raises(UserError, match=r"phases\[1\], at 0\.5: freeze_scales=true, but no layer"):
        train(make_config("quant=int4", frozen, "data.corpus_dir=/nowhere"))


def test_norm_decay_needs_quantized_weights(make_config):
    with pytest.raises(UserError, match=r"loss\.norm_decay=0\.1 is for quantized weights, and quant=float has none"):
        train(make_config("loss.norm_decay=0.1", "data.corpus_dir=/nowhere"))
    with pytest.raises(UserError, match=r"loss\.norm_decay=-1.*give at least 0"):
        make_config("quant=int4", "loss.norm_decay=-1")
