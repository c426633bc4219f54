"""Runs of a few steps, one option of a kind at a time, and what they leave behind."""

import json
from pathlib import Path

import pytest
import torch

from nibble.errors import UserError
from nibble.quant.spec import Precision
from nibble.runs.bundle import read_bundle
from nibble.runs.checkpoint import load_checkpoint
from nibble.runs.records import read
from nibble.training.run import train

OPTIONS = {
    "bf16 autocast": ["hardware.precision=bf16-mixed", "quant=int4", "schedule=from_scratch"],
    "LSTM predictor": ["model.predictor=lstm", "quant=int4", "schedule=from_scratch"],
    "fake arithmetic": ["quant=int4", "quant.arithmetic=fake"],
    "accumulation": ["trainer.accumulate=2", "hardware.max_batch_utterances=3"],
    "Noam": ["optimizer=adamw_noam"],
    "stored features": ["features=fbank_stored"],
    "no CTC, dropout": ["loss=rnnt", "model.dropout=0.1"],
    "early stop, EMA": ["trainer.early_stop_patience=1", "trainer.ema_decay=0.9"],
    "TensorBoard": ["logger=tensorboard"],
}


@pytest.mark.parametrize("overrides", OPTIONS.values(), ids=OPTIONS)
def test_a_short_run_ends_with_a_bundle_and_a_record(make_config, overrides):
    config = make_config("trainer.max_steps=4", "trainer.validate_every_steps=2", *overrides)
    record = train(config)
    assert record["reference_words"] > 10
    assert torch.isfinite(torch.tensor(record["rtf"]))
    assert [r.wer for r in read(Path("runs/records.jsonl"))] == [record["wer"]]
    bundle = read_bundle(Path(config.run_dir) / "bundle")
    assert bundle.quant == config.quant.name
    assert bundle.step == 4
    assert json.loads((Path(config.run_dir) / "bundle" / "config.json").read_text())["config"]["seed"] == 1


def test_a_staged_run_keeps_the_end_of_each_phase(make_config):
    config = make_config("quant=int4", "trainer.max_steps=10", "trainer.validate_every_steps=100")
    train(config)
    folder = Path(config.run_dir) / "checkpoints"
    found = {path.stem: load_checkpoint(path).precision for path in folder.glob("*.ckpt")}
    assert found == {"phase_1_float": Precision.float, "phase_2_int8": Precision.int8, "last": Precision.rules}


def test_a_run_starts_from_the_weights_of_another(make_config):
    first = make_config("trainer.max_steps=2")
    train(first)
    second = make_config(
        "run_dir=runs/second",
        "init_from=runs/tiny",
        "quant=int4",
        "trainer.max_steps=1",
        "optimizer.learning_rate=1e-12",
    )
    train(second)
    before, after = (load_checkpoint(Path(run.run_dir) / "checkpoints/last.ckpt").model for run in (first, second))
    for (name, old), new in zip(before.named_parameters(), after.parameters(), strict=True):
        assert torch.allclose(old, new, atol=1e-6), name
    with pytest.raises(UserError, match=r"init_from=runs/tiny.*width|init_from=runs/tiny: .* is "):
        train(make_config("run_dir=runs/third", "init_from=runs/tiny", "model.width=32", "trainer.max_steps=1"))
