"""Ten utterances are learnt by heart, in float and in four bits."""

import pytest

from nibble.training.run import train


@pytest.mark.parametrize("quant", ["float", "int4"])
def test_overfits_ten_utterances(make_config, quant):
    config = make_config(
        f"quant={quant}",
        "debug=overfit",
        "model.width=64",
        "trainer.max_steps=300",
        "trainer.validate_every_steps=300",
        "optimizer.learning_rate=5e-3",
    )
    record = train(config)
    assert record["reference_words"] > 20
    assert record["wer"] == 0.0
    assert record["quant"] == quant
