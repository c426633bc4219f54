"""How fast each layer learns, and an encoder that stays as it is in the first steps."""

from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch

from nibble.errors import UserError
from nibble.model.transducer import Transducer
from nibble.training.options import OptimizerConfig
from nibble.training.parameter_groups import parameter_groups
from nibble.training.run import train


class Kept(pl.Callback):
    """Keeps parameters before the first step, and after the second and the fourth."""

    def on_train_start(self, _trainer, module) -> None:
        torch.save(dict(module.model.named_parameters()), Path("0.pt"))

    def on_train_batch_end(self, trainer, module, *_) -> None:
        torch.save(dict(module.model.named_parameters()), Path(f"{trainer.global_step}.pt"))


def network(make_config) -> Transducer:
    config = make_config("model.layers=3")
    return Transducer(config.model, config.features, 9)


def test_lower_layers_learn_more_slowly(make_config):
    model = network(make_config)
    groups = parameter_groups(model, model, OptimizerConfig(1e-3, warmup_steps=0, layer_decay=0.5))
    rate = {id(parameter): group["lr"] for group in groups for parameter in group["params"]}
    assert len(rate) == sum(len(group["params"]) for group in groups) == len(list(model.parameters()))
    rates = {name: rate[id(parameter)] / 1e-3 for name, parameter in model.named_parameters()}
    for name, expected in (
        ("joiner.output.weight", 1),
        ("predictor.embedding.weight", 1),
        ("encoder.blocks.2.norm.weight", 1 / 2),
        ("encoder.blocks.1.attention.query.weight", 1 / 4),
        ("encoder.blocks.0.feed_forward1.expansion.bias", 1 / 8),
        ("encoder.subsampling.conv1.weight", 1 / 16),
    ):
        assert rates[name] == pytest.approx(expected), name
    for group in groups:
        assert {parameter.ndim > 1 for parameter in group["params"]} == {group["weight_decay"] > 0}


def test_without_decay_there_are_matrices_and_all_else(make_config):
    model = network(make_config)
    groups = parameter_groups(model, model, OptimizerConfig(1e-3, warmup_steps=0))
    assert [(group["lr"], group["weight_decay"]) for group in groups] == [(1e-3, 0.01), (1e-3, 0.0)]
    assert [list(map(id, group["params"])) for group in groups] == [
        [id(p) for p in model.parameters() if (p.ndim > 1) is decayed] for decayed in (True, False)
    ]
    with pytest.raises(UserError, match=r"optimizer.layer_decay=0; give more than 0 and at most 1"):
        OptimizerConfig(1e-3, warmup_steps=0, layer_decay=0)


def test_an_encoder_that_stays_as_it_is_at_first(make_config):
    """What its optimizer would have gathered in those steps does not move it afterwards either."""
    words = ["trainer.max_steps=4", "trainer.validate_every_steps=2", "optimizer.frozen_encoder_steps=2"]
    train(make_config(*words, "+callbacks.kept={_target_: test_parameter_groups.Kept}"))
    start, middle, end = (torch.load(f"{step}.pt") for step in (0, 2, 4))
    moved = {name for name in start if not torch.equal(start[name], middle[name])}
    assert moved
    assert not [name for name in moved if name.startswith("encoder.")]
    assert all(not torch.equal(middle[name], end[name]) for name in start if name.startswith("encoder.blocks"))
