"""The line that says how far training is."""

from nibble.training import progress
from nibble.training.run import train

PHASES = "schedule.phases=[{at: 0, precision: float}, {at: 0.4, precision: int8}, {at: 0.7, precision: rules}]"


def test_a_line_says_step_loss_and_precision(make_config, monkeypatch, capfd):
    monkeypatch.setattr(progress, "LINE_EVERY_S", 0.0)
    train(make_config("quant=int4", PHASES, "trainer.max_steps=6"))
    lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("step ") and "loss" in line]
    assert [line.split()[0:2] for line in lines if "/6" in line] == [["step", f"{n}/6"] for n in range(1, 7)]
    shown = [line.split()[-1] for line in lines if "/6" in line]
    assert shown == ["float", "float", "float", "int8", "int8", "int4"]


def test_the_loss_is_not_read_at_each_step(make_config, monkeypatch):
    read = []
    monkeypatch.setattr(progress, "describe", lambda trainer: read.append(trainer.global_step) or "")
    train(make_config("trainer.max_steps=4", "trainer.validate_every_steps=100"))
    assert read == []
