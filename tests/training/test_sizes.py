"""One run for several sizes: what a step trains, and that a size taken out is what was trained."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from nibble.bench.size import measure_run
from nibble.errors import UserError
from nibble.model.options import FoundationConfig, FoundationKind
from nibble.model.transducer import Transducer
from nibble.quant.convert import freeze, prune, quantized_modules, set_precision
from nibble.quant.spec import Precision, QuantConfig
from nibble.runs.bundle import bundle_bytes
from nibble.runs.checkpoint import load_checkpoint, quantize
from nibble.runs.loaded import prepared_model
from nibble.runs.sizes import taken_out
from nibble.training.losses import encode, of_labels
from nibble.training.run import train
from nibble.training.sizes import SmallerSizes

MIDDLE = "{name:middle,feed_forward:0.75,heads:3,channels:40}"
SMALL = "{name:small,layers:1,feed_forward:0.5,heads:2,channels:24}"
SIZES = f"model.sizes=[{MIDDLE},{SMALL}]"
MANY = ["model.layers=2", "model.heads=4", "model.feed_forward_multiplier=1", SIZES]
TOGETHER = "schedule.phases=[{at:0,precision:int4,together:[float,int4]}]"


@pytest.fixture
def prepared(make_config):
    """prepared(quant, precision) -> the configuration, the whole network and its smaller sizes in training."""

    def make(quant: str, precision: Precision):
        config = make_config(*MANY, f"quant={quant}", "schedule=from_scratch")
        torch.manual_seed(0)
        whole = prepared_model(config, 12).train()
        for name, tensor in whole.state_dict().items():
            if tensor.is_floating_point() and "running" not in name:
                tensor += 0.05 * torch.rand_like(tensor)
        set_precision(whole, precision)
        prune(whole)
        return config, whole, SmallerSizes(whole, config, 12, of_labels(config.model, config.loss))

    return make


@pytest.mark.parametrize(
    ("quant", "precision"),
    [
        ("int4", Precision.rules),
        ("int4", Precision.float),
        ("int4_asymmetric", Precision.rules),
        ("int4_24", Precision.rules),
    ],
)
@pytest.mark.parametrize("size", ["middle", "small"])
def test_codes_and_scales_are_those_of_the_weights_of_the_size(prepared, quant, precision, size):
    """Bit for bit, in training, in evaluation, and frozen to integers."""
    config, whole, smaller = prepared(quant, precision)
    features, lengths = torch.randn(2, 60, config.features.mel_bins), torch.tensor([60, 44])
    labels = torch.randint(1, 12, (2, 3))
    for training in (True, False):
        whole.train(training)
        alone, state = taken_out(config, 12, whole.state_dict(), size)
        taken = prepared_model(alone, 12)
        taken.load_state_dict(state)
        set_precision(taken, precision)
        taken.train(training)
        nested = smaller.at_precision(size)
        with nested.with_weights() as within:
            found = within(features, lengths, labels, lengths)
            layers = quantized_modules(within)
            for name, layer in quantized_modules(taken).items() if precision is Precision.rules else ():
                for weight in layer.weight_names:
                    own, other = (one.quantized_weight(weight) for one in (layer, layers[name]))
                    assert torch.equal(own.codes, other.codes), name
                    assert torch.equal(own.scale, other.scale), name
        for own, other in zip(taken(features, lengths, labels, lengths), found, strict=True):
            assert torch.equal(own, other)
    if quant == "int4":
        freeze(taken)
        torch.testing.assert_close(taken(features, lengths, labels, lengths), found, rtol=1e-5, atol=1e-5)


def test_a_step_trains_the_smallest_and_one_between(make_config):
    sizes = "model.sizes=[{name:a,layers:4},{name:b,layers:3},{name:c,layers:2},{name:d,layers:1}]"
    config = make_config(sizes, "model.layers=5")
    whole = Transducer(config.model, config.features, 12)
    smaller = SmallerSizes(whole, config, 12, of_labels(config.model, config.loss))
    drawn = [smaller.drawn(step) for step in range(300)]
    assert drawn == [smaller.drawn(step) for step in range(300)], "a resumed run draws the same"
    assert {first for first, _ in drawn} == {"d"}
    for size in "abc":
        assert 70 <= [between for _, between in drawn].count(size) <= 130
    assert len({(tuple(smaller.drawn(step)), step % 2) for step in range(300)}) == 6


def test_the_whole_network_teaches_and_learns_nothing_from_it(prepared):
    """The match with the whole network's output moves the smaller network towards it, and not the other way."""
    config, whole, smaller = prepared("float", Precision.float)
    batch = _batch(config)
    encoded = encode(whole, batch)
    ((_, found), *_) = smaller.losses(encoded, step=0)
    assert set(found.terms) == {"transducer", "encoder_match"}
    found.terms["encoder_match"].backward()
    assert whole.encoder.blocks[0].attention.query.weight.grad.abs().sum() > 0
    assert whole.encoder.blocks[1].attention.query.weight.grad is None, "only the teacher has this block"
    assert found.loss > found.terms["transducer"]


def _batch(config):
    from nibble.bench.random_batch import random_batch

    return random_batch(2, 60, config.features.mel_bins, 3, 12)


@pytest.fixture
def options():
    steps = ["trainer.max_steps=8", "trainer.validate_every_steps=100"]
    return [*MANY, "quant=int4", TOGETHER, *steps]


def test_one_checkpoint_has_each_size_at_each_precision(make_config, options):
    train(make_config(*options))
    run = Path("runs/tiny")
    features, lengths = torch.randn(1, 60, 80), torch.tensor([60])
    parameters, outputs = {}, set()
    for size in (None, "middle", "small"):
        loaded = load_checkpoint(run, size)
        assert loaded.config.model.sizes == []
        assert not [name for name in loaded.model.state_dict() if "size_norms" in name]
        parameters[size] = sum(parameter.numel() for parameter in loaded.model.parameters())
        for quant in ("float", "int4"):
            at = quantize(loaded, QuantConfig(quant))
            assert (at.quant, at.method) == (quant, "shared")
            outputs.add(float(at.model.encode(features, lengths)[0].detach().abs().sum()))
            trained = at.model.encoder.blocks[0].convolution.batch_norm
            assert trained.num_batches_tracked > 0
    assert len(outputs) == 6
    assert parameters[None] > parameters["middle"] > parameters["small"]
    assert load_checkpoint(run, "small").config.model.name == "tiny-small"
    with pytest.raises(UserError, match="tiny has no size=tall; it has: middle, small; leave size= out"):
        load_checkpoint(run, "tall")
    with pytest.raises(UserError, match="is a bundle, which holds one size; leave size=small out"):
        load_checkpoint(run / "bundle", "small")
    measured = {(one.case, one.contender): one.bytes for one in measure_run(run)}
    assert len(set(measured.values())) == 6
    for quant in ("float", "int4"):
        assert measured["tiny", quant] > measured["tiny-middle", quant] > measured["tiny-small", quant]
    assert measured["tiny", "int4"] == bundle_bytes(run / "bundle")
    another = make_config("run_dir=runs/another", "quant=int4", *MANY, f"init_from={run}", "trainer.max_steps=1")
    assert train(another)["steps"] == 9


def test_a_resumed_run_is_the_same(make_config, train_until, options):
    train(make_config(*options, "run_dir=runs/whole"))
    whole = torch.load("runs/whole/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    assert any("size_norms.1.running_mean_int4" in name for name in whole)
    train_until(5, make_config(*options))
    train(make_config("resume=runs/tiny"))
    again = torch.load("runs/tiny/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    for name, tensor in whole.items():
        assert torch.equal(tensor, again[name]), name


def test_what_has_no_corner_is_refused(make_config):
    with pytest.raises(UserError, match="quant=int4_lowrank makes each matrix a product of two"):
        make_config(*MANY, "quant=int4_lowrank")
    with pytest.raises(UserError, match="quant=int4 learns scales of groups"):
        make_config(*MANY, "quant.name=int4", "quant.rules=[{weight:{bits:4,group_size:4,learned:true}}]")
    with pytest.raises(UserError, match="is another encoder; leave"):
        replace(make_config(*MANY).model, foundation=FoundationConfig(FoundationKind.hubert))
    with pytest.raises(UserError, match="group_size"):  # found on the size that it does not divide
        train(make_config(*MANY, "quant=int4_grouped", "quant.group_size=48"))
