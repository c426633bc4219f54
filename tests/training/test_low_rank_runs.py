"""Factorized layers on their way through training, checkpoints, bundles and quantization afterwards."""

from pathlib import Path

import pytest
import torch

from nibble import composition
from nibble.errors import UserError
from nibble.quant.convert import quantized_modules
from nibble.quant.low_rank import low_rank_modules
from nibble.quant.spec import Precision
from nibble.runs.bundle import read_bundle, write_bundle
from nibble.runs.checkpoint import load_checkpoint, quantize
from nibble.runs.loaded import Loaded, float_parameters
from nibble.training.run import check_rules, train

SHORT = ["trainer.max_steps=3", "trainer.validate_every_steps=100"]
LAYERS = {
    f"encoder.blocks.0.feed_forward{number}.{layer}" for number in (1, 2) for layer in ("expansion", "projection")
}


@pytest.fixture
def float_run(make_config) -> Path:
    config = make_config(*SHORT, "run_dir=runs/float")
    train(config)
    return Path(config.run_dir)


def encode(loaded: Loaded) -> torch.Tensor:
    features = torch.randn(2, 60, 80, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        return loaded.model.encode(features, torch.tensor([60, 41]))[0]


def test_trained_from_scratch_frozen_and_reloaded(make_config):
    config = make_config(*SHORT, "quant=int4_lowrank", "schedule=from_scratch")
    record = train(config)
    trained, bundle = load_checkpoint(Path(config.run_dir)), read_bundle(Path(config.run_dir) / "bundle")
    for loaded in (trained, bundle):
        assert (loaded.quant, loaded.method) == ("int4_lowrank", "qat")
        assert set(low_rank_modules(loaded.model)) == LAYERS
        assert {f"{name}.{factor}" for name in LAYERS for factor in ("first", "second")} <= set(
            quantized_modules(loaded.model)
        )
    torch.testing.assert_close(encode(bundle), encode(trained), atol=0.05, rtol=0.05)  # the rest is in float16
    assert record["quant"] == "int4_lowrank"
    assert record["parameters"] == float_parameters(config, trained.tokenizer.size), "those of the float network"
    assert record["parameters"] > sum(parameter.numel() for parameter in trained.model.parameters())


def test_in_float(make_config, float_run, tmp_path):
    """Without rules: trained from the nearest factors of a float run, then quantized without training."""
    config = make_config(
        *SHORT,
        "quant=float_lowrank",
        f"init_from={float_run}",
        "optimizer.learning_rate=1e-12",
        "trainer.max_steps=1",
    )
    assert train(config)["quant"] == "float_lowrank"
    trained, full = load_checkpoint(Path(config.run_dir)), load_checkpoint(float_run)
    assert (trained.quant, trained.method, trained.precision) == ("float_lowrank", "float", Precision.float)
    for name, factors in low_rank_modules(trained.model).items():
        weight = full.model.get_submodule(name).weight
        left = torch.linalg.svdvals(weight)[factors.rank :].square().sum()
        error = (factors.second.weight @ factors.first.weight - weight).square().sum()
        torch.testing.assert_close(error, left, rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(encode(read_bundle(Path(config.run_dir) / "bundle")), encode(trained))

    low_rank = trained.config.quant.low_rank
    for quant in ("int4", "int4_lowrank"):  # the factors stay, said again or not
        rounded = quantize(trained, make_config(f"quant={quant}").quant)
        assert (rounded.quant, rounded.method, rounded.config.quant.low_rank) == (quant, "ptq", low_rank)
        write_bundle(rounded, tmp_path / quant)
        assert set(low_rank_modules(read_bundle(tmp_path / quant).model)) == LAYERS
    other = make_config("quant=int4_lowrank", "quant.low_rank=[{match: '**.expansion', share: 0.25}]")
    with pytest.raises(UserError, match="factorized already, and by other rules"):
        quantize(trained, other.quant)
    with pytest.raises(UserError, match=r"init_from=.* is factorized by .*share=0\.5.* this run has \[\]"):
        train(make_config(*SHORT, "run_dir=runs/third", "quant=int4", f"init_from={config.run_dir}"))
    again = make_config(
        *SHORT, "run_dir=runs/again", "quant=int4_lowrank", "schedule=from_scratch", f"init_from={config.run_dir}"
    )
    assert train(again)["quant"] == "int4_lowrank"


def test_after_training(make_config, float_run, tmp_path):
    """A float checkpoint is factorized by singular values, and its factors rounded or left in float."""
    full = load_checkpoint(float_run)
    for name, expected in (("int4_lowrank", Precision.rules), ("float_lowrank", Precision.float)):
        found = quantize(full, make_config(f"quant={name}").quant)
        assert (found.quant, found.method, found.precision) == (name, "ptq", expected)
        write_bundle(found, tmp_path / name)
        read = read_bundle(tmp_path / name)
        assert (read.quant, read.method) == (name, "ptq")
        torch.testing.assert_close(encode(read), encode(found), atol=0.05, rtol=0.05)


@pytest.mark.parametrize("model", ["xxs", "xs", "s", "m", "l"])
@pytest.mark.parametrize("quant", ["int4_lowrank", "float_lowrank"])
def test_the_examples_suit_every_model(model, quant):
    check_rules(composition.training_config([f"model=conformer_{model}", f"quant={quant}", "run_dir=x"]))


def test_wrong_rules_stop_before_data_is_touched(make_config):
    with pytest.raises(UserError, match=r"low_rank 1: match='encodr\.\*\*' wins no Linear layer; nearest: "):
        train(make_config("quant.low_rank=[{match: 'encodr.**'}]", "data.corpus_dir=/nowhere"))
    square = "quant.low_rank=[{match: '**.query', share: 0.6}]"
    with pytest.raises(UserError, match=r"query \(48, 48\): share=0\.6 of 48 is rank 28.*nearest share: 0\.4792"):
        check_rules(make_config(square))
    with pytest.raises(UserError, match=r"quant rule 1: .*expansion.*LowRankLinear.*expansion\.first"):
        check_rules(make_config("quant=int4_lowrank", "quant.rules=[{match: '**.expansion', weight: {bits: 4}}]"))
