"""One run for several precisions: what a step draws, who teaches, and what is read from the checkpoint."""

from pathlib import Path

import pytest
import torch

from nibble.errors import UserError
from nibble.quant.schedule import drawn_at, state_at
from nibble.quant.spec import Phase, Precision, QuantConfig, ScheduleConfig
from nibble.runs.bundle import read_bundle
from nibble.runs.checkpoint import load_checkpoint, quantize
from nibble.runs.records import read
from nibble.training.run import train
from nibble.training.teacher import FloatBranch, find_teacher

TOGETHER = [Precision.float, Precision.int8, Precision.int4, Precision.int2]
SCHEDULE = ScheduleConfig([Phase(0.0, Precision.float), Phase(0.4, Precision.int4, together=TOGETHER)])


def test_every_precision_is_drawn_about_as_often_and_a_step_draws_the_same_again():
    draws = [drawn_at(SCHEDULE, 0.5, step)[0] for step in range(400)]
    assert draws == [drawn_at(SCHEDULE, 0.9, step)[0] for step in range(400)]
    for precision in TOGETHER:
        assert 70 <= draws.count(precision) <= 130
    assert {drawn_at(SCHEDULE, 0.3, step)[0] for step in range(50)} == {Precision.float}
    assert state_at(SCHEDULE, 0.9) == (Precision.int4, 1.0), "validation and the result are at one of them"


def test_phases_that_make_no_sense():
    with pytest.raises(UserError, match="trains float, int8 together and ends at precision rules"):
        Phase(0.4, Precision.rules, together=[Precision.float, Precision.int8])
    with pytest.raises(UserError, match="together and a ramp"):
        Phase(0.4, Precision.int8, together=[Precision.float, Precision.int8], ramp=0.1)


@pytest.fixture
def run(make_config):
    steps = ["trainer.max_steps=12", "trainer.validate_every_steps=12", "distill.teacher=self"]
    config = make_config("quant=int4", "schedule=together", *steps)
    train(config)
    return Path("runs/tiny")


def test_one_checkpoint_has_each_precision(run):
    assert [(record.quant, record.method) for record in read(Path("runs/records.jsonl"))] == [("int4", "shared")]
    loaded = load_checkpoint(run)
    assert (loaded.quant, loaded.method) == ("int4", "shared")
    features, lengths = torch.randn(1, 60, 80), torch.tensor([60])
    outputs = {}
    for name in ("int8", "int4", "int2", "float"):
        at = quantize(loaded, QuantConfig(name))
        assert (at.quant, at.method, at.frozen) == (name, "shared", False)
        outputs[name] = at.model.encode(features, lengths)[0]
    assert len({float(out.abs().sum()) for out in outputs.values()}) == 4
    bundle = read_bundle(run / "bundle")
    assert (bundle.quant, bundle.method) == ("int4", "shared")
    found = bundle.model.encode(features, lengths)[0]  # biases and norms have 16 bits there
    assert (found - outputs["int4"]).norm() < 0.05 * outputs["int4"].norm()
    with pytest.raises(UserError, match="no weights for quant=int3; it has: float, int2, int4, int8"):
        quantize(loaded, QuantConfig("int3"))
    with pytest.raises(UserError, match="no weights for quant=int8; it has: int4; give the run's checkpoint"):
        quantize(bundle, QuantConfig("int8"))


def test_the_float_branch_teaches_if_asked_to(make_config):
    assert isinstance(find_teacher(make_config("quant=int4", "schedule=together", "distill.teacher=self")), FloatBranch)
    assert find_teacher(make_config("quant=int2", "schedule=together")) is None


def test_resume_is_exact(make_config, train_until):
    options = ["quant=int4", "schedule=together", "distill.teacher=self", "trainer.max_steps=10"]
    options.append("trainer.validate_every_steps=100")
    train(make_config(*options, "run_dir=runs/whole"))
    whole = torch.load("runs/whole/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    train_until(7, make_config(*options))
    train(make_config("resume=runs/tiny"))
    again = torch.load("runs/tiny/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    for name, tensor in whole.items():
        assert torch.equal(tensor, again[name]), name
