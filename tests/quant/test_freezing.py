"""What a phase holds still, and that a run stopped within it goes on as if it had not been."""

from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from stopped import StopAt
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from nibble.errors import UserError
from nibble.quant.callback import QuantizationCallback
from nibble.quant.freezing import check_freezing
from nibble.quant.spec import ActivationSpec, Phase, Precision, QuantConfig, Rule, ScheduleConfig, WeightSpec

STEPS, FREEZE, THAW = 12, 4, 8
MOVING = QuantConfig("moving", [Rule("**", WeightSpec(4, learned=True), ActivationSpec(8, static=True))])
SCHEDULE = ScheduleConfig(
    [Phase(0.0, Precision.rules), Phase(FREEZE / STEPS, freeze_norms=True, freeze_scales=True), Phase(THAW / STEPS)]
)
STATE = ("running_mean", "running_var", "num_batches_tracked", "log_scale", "activation_max")


class Module(pl.LightningModule):
    """An MLP with a batch norm; keeps its whole state after each step."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 1))
        self.history: dict[int, dict[str, Tensor]] = {}
        self.modes: list[bool] = []

    def training_step(self, batch: list[Tensor], _index: int) -> Tensor:
        self.modes.append(self.net[1].training)
        louder = 1 + 0.2 * (self.global_step % 3)
        return (self.net(louder * batch[0]) - batch[1]).square().mean()

    def validation_step(self, batch: list[Tensor], _index: int) -> None:
        assert not self.net[1].training
        self.net(batch[0])

    def on_train_batch_end(self, *_: Any) -> None:
        self.history[self.global_step] = {name: tensor.clone() for name, tensor in self.state_dict().items()}

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), 0.02, weight_decay=0.1)  # momentum and decay move what has no slope


def loader() -> DataLoader:
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(20, 6, generator=draw)
    return DataLoader(TensorDataset(x, x.sum(1, keepdim=True)), batch_size=20)  # one batch: no place in it to resume


def trainer(folder: Path, *callbacks: pl.Callback, schedule: ScheduleConfig = SCHEDULE, **options: Any) -> pl.Trainer:
    return pl.Trainer(
        max_steps=STEPS,
        accelerator="cpu",
        callbacks=[QuantizationCallback(MOVING, schedule), *callbacks],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        default_root_dir=folder,
        **options,
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Module:
    """A run through all phases, with a validation after each step."""
    module = Module()
    trainer(tmp_path_factory.mktemp("whole")).fit(module, loader(), loader())
    return module


def test_what_is_frozen_does_not_move(whole):
    """Not by a batch, a slope, momentum or weight decay; the weights go on, and afterwards everything moves again."""
    names = [name for name in whole.state_dict() if name.endswith(STATE)]
    assert len(names) == 3 + 2 + 2
    for name in names:
        held = [torch.equal(whole.history[step][name], whole.history[step + 1][name]) for step in range(1, STEPS)]
        for step, same in enumerate(held, start=1):
            assert same == (FREEZE <= step < THAW), (name, step)
    for name in ("net.0.weight", "net.1.weight", "net.1.bias"):
        assert not any(torch.equal(whole.history[s][name], whole.history[s + 1][name]) for s in range(1, STEPS)), name


def test_frozen_norms_normalise_with_their_statistics(whole):
    """Also after a validation, from which Lightning puts modules back in the mode of their own, and in a new epoch."""
    assert whole.modes == [True] * FREEZE + [False] * (THAW - FREEZE) + [True] * (STEPS - THAW)


@pytest.mark.parametrize("stop", [2, 5, 7, 9])
def test_resumes_exactly(tmp_path, whole, stop):
    """Stopped before, within and after the frozen phase."""
    file = tmp_path / "stopped.ckpt"
    trainer(tmp_path, StopAt(stop, file)).fit(Module(), loader(), loader())
    resumed = Module()
    trainer(tmp_path).fit(resumed, loader(), loader(), ckpt_path=file, weights_only=True)
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name


def test_accumulated_batches(tmp_path):
    """Slopes that were gathered before the phase began do not move scales within it."""
    module = Module()
    trainer(tmp_path, accumulate_grad_batches=2).fit(module, loader())
    name = "net.0.weight_log_scale"
    steps = range(FREEZE, THAW)
    assert all(torch.equal(module.history[step][name], module.history[step + 1][name]) for step in steps)
    assert not torch.equal(module.history[THAW][name], module.history[STEPS][name])


def test_nothing_to_freeze(tmp_path):
    frozen = ScheduleConfig([Phase(), Phase(0.5, freeze_scales=True)])
    plain = QuantConfig("int4", [Rule("**", WeightSpec(4), ActivationSpec(8))])
    with pytest.raises(UserError, match=r"phases\[1\], at 0.5: freeze_scales=true.*weight.learned=true"):
        check_freezing(plain, frozen)
    check_freezing(MOVING, frozen)
    norms = ScheduleConfig([Phase(freeze_norms=True)])
    check_freezing(plain, norms)  # a model may well have no batch norm
    run = trainer(tmp_path, schedule=norms)
    run.callbacks[0].target = "net.0"  # type: ignore[attr-defined]
    run.fit(Module(), loader())
