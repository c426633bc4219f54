"""A foundation encoder under a CTC head, trained on raw samples, and everything after that."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from nibble.config import Config
from nibble.errors import UserError
from nibble.evaluation.evaluate import evaluate_checkpoints
from nibble.evaluation.options import Backend, EvaluateConfig
from nibble.export.onnx.graphs import export_graphs
from nibble.export.options import Encoding
from nibble.hardware import HardwareConfig
from nibble.post_training.options import QuantizeConfig, Rounding
from nibble.post_training.quantization import quantize_without_training
from nibble.quant.convert import quantized_modules
from nibble.quant.spec import ActivationSpec, QuantConfig, Rule, WeightSpec
from nibble.runs.checkpoint import load_checkpoint
from nibble.training.run import check_rules, train

pytest.importorskip("transformers", reason="needs the extra foundation")
SMALL = [
    "model=wav2vec2_xxs",
    "model.width=32",
    "model.layers=1",
    "model.heads=2",
    "model.foundation.channels=[16,16,16,16,16,16,16]",
    "features=samples",
    "loss=rnnt",
    "trainer.max_steps=2",
    "trainer.validate_every_steps=2",
    "data.spec_augment.time_masks=2",
]


@pytest.fixture
def config_of(make_config) -> Callable[..., Config]:
    return lambda *words: make_config(*SMALL, *words)


@pytest.mark.parametrize("quant", ["float", "int8", "int4", "int4_24"])
def test_trained_evaluated_and_quantized_as_any_other_model(config_of, quant: str) -> None:
    record = train(config_of(f"quant={quant}", "schedule=from_scratch"))
    assert record is not None
    hardware = HardwareConfig(workers=0, threads=1)
    for backend in (Backend.torch, Backend.bundle):
        (result,) = evaluate_checkpoints(EvaluateConfig("runs/tiny", backend=backend, hardware=hardware, records=None))
        assert result.record.wer == record["wer"]
        assert result.record.bundle_bytes == record["bundle_bytes"]
    loaded = load_checkpoint(Path("runs/tiny"))
    if quant != "float":
        bits = {layer.weight_bits for layer in quantized_modules(loaded.model).values()}
        assert bits == {8 if quant == "int8" else 4}
        assert record["ratio"] > 2  # of so few weights, most bytes are norms, biases and names
        return
    int4 = QuantConfig("int4", [Rule("**", WeightSpec(4), ActivationSpec(8))])
    options = QuantizeConfig("runs/tiny", int4, Rounding.gptq, calibration_utterances=2)
    rounded = quantize_without_training(loaded, options, torch.device("cpu"))
    assert {"joiner.output.weight", "encoder.projection.projection.weight"} <= rounded.errors.keys()
    with pytest.raises(UserError, match=r"has a CTC head, and this export is of transducers; give target=bundle"):
        export_graphs(loaded, Encoding.float)


def test_what_does_not_fit_is_said_before_any_speech_is_read(config_of, make_config) -> None:
    with pytest.raises(UserError, match=r"hears raw samples, not kaldi; give features=samples"):
        check_rules(config_of("features=fbank"))
    with pytest.raises(UserError, match=r"cannot hear features=samples; give features=fbank"):
        check_rules(make_config("features=samples"))
    with pytest.raises(UserError, match=r"loss.ctc_weight=0.3 .* trained with CTC alone; give loss=rnnt"):
        config_of("loss=rnnt_ctc")
    with pytest.raises(UserError, match=r"features.normalization=corpus is for mel bins"):
        config_of("features.normalization=corpus")
    with pytest.raises(UserError, match=r"distill.posterior_weight=1 compares lattices .*distill.posterior_weight=0"):
        train(config_of("quant=int2", "distill.teacher=self", "schedule=staged"))
