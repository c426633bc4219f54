"""All precisions of a schedule are tried before training begins, without a trace."""

import copy
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from nibble.quant import callback
from nibble.quant.callback import QuantizationCallback
from nibble.quant.rehearsal import states_ahead
from nibble.quant.spec import ActivationSpec, Phase, Precision, QuantConfig, Rule, ScheduleConfig, WeightSpec

STATIC = QuantConfig("test", [Rule("**", WeightSpec(4), ActivationSpec(8, static=True))])
LATER = ScheduleConfig([Phase(0.0, Precision.float), Phase(0.3, Precision.int8), Phase(0.6, ramp=0.2)])


class Network(pl.LightningModule):
    """Dropout, a batch norm and a count of steps: all that a step changes."""

    def __init__(self, fails: bool = False, by_weight: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(), nn.Linear(8, 1))
        self.head = nn.Linear(1, 1)
        self.fails, self.by_weight, self.steps, self.seen = fails, by_weight, 0, [0.0]

    def forward(self, x: Tensor) -> Tensor:
        out = self.layers(x)
        return nn.functional.linear(out, self.head.weight) if self.by_weight else self.head(out)

    def training_step(self, batch: Tensor) -> Tensor:
        self.steps += 1
        self.seen.append(float(batch.sum()))
        loss = self(batch).square().mean()
        self.log("loss", loss)
        if self.fails and self.layers[0].precision is Precision.rules:
            raise ZeroDivisionError("only with codes")
        return loss

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters())


def trained(module: Network) -> Network:
    torch.manual_seed(1)
    data = DataLoader(torch.randn(40, 4, generator=torch.Generator().manual_seed(2)), 4)
    silent = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = pl.Trainer(
        max_steps=10,
        callbacks=[QuantizationCallback(STATIC, LATER)],
        enable_model_summary=False,
        accelerator="cpu",
        **silent,
    )
    trainer.fit(module, data)
    return module


def test_states_ahead() -> None:
    ramp = [(Precision.rules, 0.5), (Precision.rules, 1.0)]
    assert states_ahead(LATER, 0.0) == [(Precision.float, 1.0), (Precision.int8, 1.0), *ramp]
    assert states_ahead(LATER, 0.7) == ramp
    both = ScheduleConfig([Phase(precision=Precision.int4, together=[Precision.int4, Precision.int8])])
    assert states_ahead(both, 0.0) == [(Precision.int4, 1.0), (Precision.int8, 1.0)]


def test_what_would_fail_later_fails_before_the_first_step() -> None:
    module = Network(fails=True)
    before = copy.deepcopy(module.state_dict())
    with pytest.raises(ZeroDivisionError, match="only with codes") as caught:
        trained(module)
    assert "precision rules with 50% of the rounding before training began" in caught.value.__notes__[0]
    assert all(torch.equal(module.state_dict()[name], tensor) for name, tensor in before.items())
    assert module.steps == 0


def test_it_leaves_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same weights, statistics, static scales, random numbers and attributes as without it."""
    found = trained(Network())
    monkeypatch.setattr(callback, "rehearse", lambda *_: [])
    expected = trained(Network())
    assert found.steps == expected.steps == 10
    assert found.seen == expected.seen
    for name, tensor in expected.state_dict().items():
        assert torch.equal(found.state_dict()[name], tensor), name


def test_weights_that_are_used_without_their_layer_are_named() -> None:
    with pytest.warns(UserWarning, match="multiply by their float weights: head"):
        trained(Network(by_weight=True))
