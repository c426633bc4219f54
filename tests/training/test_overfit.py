"""Ten utterances are learnt by heart, in float and in four bits."""

import pytest

from nibble.evaluation.evaluate import evaluate_checkpoints
from nibble.evaluation.options import EvaluateConfig, Search
from nibble.hardware import HardwareConfig
from nibble.training.run import train


@pytest.mark.parametrize("quant", ["float", "int4"])
def test_overfits_ten_utterances(make_config, quant):
    config = make_config(
        f"quant={quant}",
        "debug=overfit",
        "model.width=64",
        "trainer.max_steps=250",
        "trainer.validate_every_steps=250",
        "optimizer.learning_rate=5e-3",
    )
    train(config)
    # Beam search sums alignments: a model that knows ten utterances from their first frames may spread each label
    # over so many frames that blank is the best guess in every one of them.
    options = EvaluateConfig(
        checkpoint=f"{config.run_dir}/bundle",
        decoding=Search.beam,
        records=None,
        hardware=HardwareConfig(threads=1, workers=0),
    )
    record = evaluate_checkpoints(options)[0].record
    assert record.reference_words > 20
    assert record.quant == quant
    assert record.wer == 0.0
