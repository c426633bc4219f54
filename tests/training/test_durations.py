"""A transducer of labels and durations (TDT) is trained, written and evaluated as any other."""

import pytest

from nibble.errors import UserError
from nibble.evaluation.evaluate import evaluate_checkpoints
from nibble.evaluation.options import Backend, EvaluateConfig, Search
from nibble.hardware import HardwareConfig
from nibble.training.run import train

DURATIONS = ["model.max_duration_frames=3", "trainer.max_steps=2", "trainer.validate_every_steps=2"]


def test_trained_written_and_evaluated_at_four_bits(make_config) -> None:
    record = train(make_config(*DURATIONS, "quant=int4", "schedule=from_scratch"))
    assert record is not None
    hardware = HardwareConfig(workers=0, threads=1)
    options = EvaluateConfig("runs/tiny", backend=Backend.bundle, hardware=hardware, records=None)
    (result,) = evaluate_checkpoints(options)
    assert result.record.wer == record["wer"]
    options.decoding = Search.beam
    with pytest.raises(UserError, match="predicts durations"):
        evaluate_checkpoints(options)


def test_what_knows_no_durations_is_refused_before_any_speech_is_read(make_config) -> None:
    with pytest.raises(UserError, match=r"loss.fused=false .* model.max_duration_frames=3; leave loss.fused out"):
        make_config(*DURATIONS, "loss.fused=false")
    with pytest.raises(UserError, match=r"compares lattices of plain transducers, and model=\w+ predicts durations"):
        train(make_config(*DURATIONS, "quant=int2", "distill.teacher=self", "schedule=staged"))
    with pytest.raises(UserError, match=r"model.max_duration_frames=65"):
        make_config("model.max_duration_frames=65")
