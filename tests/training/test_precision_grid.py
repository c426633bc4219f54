"""Every file of conf/quant: three steps of training, a bundle, and the same integers read back from it."""

import copy
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir

from nibble.errors import UserError
from nibble.model.options import ModelConfig
from nibble.model.transducer import Transducer
from nibble.quant.convert import freeze, prepare, quantized_modules
from nibble.quant.rules import coverage, quantized_share
from nibble.runs.bundle import read_bundle
from nibble.runs.checkpoint import load_checkpoint
from nibble.training.run import check_rules, train

CONF = Path(__file__).parents[2] / "conf"
CHOICES = sorted(path.stem for path in (CONF / "quant").glob("*.yaml"))
MORE = {
    "mixed3": ["model.layers=3", "model.predictor=stateless"],  # what was found for one model fits that one only
    "int4_grouped": ["quant.group_size=64"],
}
WIDE = [f"model.{part}=128" for part in ("width", "predictor_width", "joiner_width", "subsampling_channels")]
NAMES = {"int4_grouped": "int4_g64"}


@pytest.mark.parametrize("quant", CHOICES)
def test_three_steps(quant, make_config):
    steps = ["trainer.max_steps=3", "trainer.validate_every_steps=3", "trainer.max_validation_utterances=1"]
    config = make_config(
        f"quant={quant}",
        "schedule=from_scratch",
        "schedule.prune={at: 0, fixed_at: 0.5}",
        *MORE.get(quant, []),
        *WIDE,
        *steps,
    )
    record = train(config)
    assert (record["quant"], record["reference_words"] > 0) == (NAMES.get(quant, quant), True)
    trained, bundle = load_checkpoint(Path("runs/tiny")), read_bundle(Path("runs/tiny/bundle"))
    model = copy.deepcopy(trained.model)
    freeze(model)
    read = quantized_modules(bundle.model)
    for name, layer in quantized_modules(model).items():
        for weight, integers in layer.frozen_weights().items():
            for mine, theirs in zip(integers, read[name].frozen_weights()[weight], strict=True):
                assert (mine is None and theirs is None) or torch.equal(mine, theirs), f"{name}.{weight}"
    features, lengths = torch.randn(1, 60, 80), torch.tensor([60])
    encoded = []
    for network in (bundle.model, trained.model):
        torch.manual_seed(1)  # analog products have noise of their own
        encoded.append(network.encode(features, lengths)[0])
    found, expected = encoded
    assert (found - expected).norm() < 0.05 * expected.norm(), "biases and norms have 16 bits there"


@pytest.mark.parametrize("quant", ["int8", "int4", "mixed48", "int4_24", "int2"])
def test_nearly_all_of_conformer_l_becomes_integers(quant, make_config):
    config = make_config(f"quant={quant}")
    with torch.device("meta"):
        model = Transducer(conformer_l(), config.features, vocabulary_size=1024)
    prepare(model, config.quant)
    assert quantized_share(coverage(model)) >= 0.994


def conformer_l() -> ModelConfig:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return ModelConfig(**compose("model/conformer_l").model)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (
            ["quant=int4_grouped", "quant.group_size=128", "model=conformer_xs"],
            "group_size=128, .* K=152 .nearest that does: 152",
        ),
        (["quant=int4_grouped", "model=conformer_s"], "group_size=32, .* K=152 .nearest that does: 38"),
        (["quant.rules=[{match: 'predictor.embedding', activation: {bits: 8}}]", "quant.name=x"], "a look-up is no"),
    ],
)
def test_what_cannot_be_stops_before_data_is_touched(overrides, words, make_config):
    with pytest.raises(UserError, match=words):
        check_rules(make_config(*overrides))
