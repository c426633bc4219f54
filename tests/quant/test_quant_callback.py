"""The callback on a LightningModule of a user's own."""

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
from nibble.quant.convert import quantized_modules
from nibble.quant.spec import ActivationSpec, Phase, Precision, QuantConfig, Rule, ScheduleConfig, WeightSpec

STEPS = 20
INT4 = QuantConfig("int4", [Rule("**", WeightSpec(4), ActivationSpec(8))])
STAGED = ScheduleConfig(
    [Phase(0.0, Precision.float), Phase(0.3, Precision.int8), Phase(0.5, Precision.rules, ramp=0.25)]
)


class Module(pl.LightningModule):
    """An MLP; notes the precision of each training step and of each validation."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 1))
        self.head = nn.Linear(1, 1)
        self.steps: list[tuple[Precision, float]] = []
        self.validations: list[tuple[int, Precision]] = []
        self.losses: list[float] = []

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.net(x))

    def training_step(self, batch: list[Tensor], _index: int) -> Tensor:
        layer = self.net[0]
        self.steps.append((layer.precision, layer.blend))
        loss = (self(batch[0]) - batch[1]).square().mean()
        self.losses.append(loss.item())
        return loss

    def validation_step(self, batch: list[Tensor], _index: int) -> None:
        self.validations.append((self.global_step, self.net[0].precision))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), 0.02)


def loader(batches: int = 5) -> DataLoader:
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(40, 6, generator=draw)
    return DataLoader(TensorDataset(x, x.sum(1, keepdim=True)), batch_size=40 // batches)


def trainer(folder: Path, *callbacks: pl.Callback, **options: Any) -> pl.Trainer:
    return pl.Trainer(
        **{"max_steps": STEPS, "logger": False, "num_sanity_val_steps": 1, **options},
        accelerator="cpu",
        callbacks=list(callbacks),
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
    )


def test_three_phases(tmp_path):
    module = Module()
    trainer(tmp_path, QuantizationCallback(INT4, STAGED)).fit(module, loader(), loader())
    precisions = [precision for precision, _ in module.steps]
    assert precisions == [Precision.float] * 6 + [Precision.int8] * 4 + [Precision.rules] * 10
    blends = [blend for _, blend in module.steps]
    assert blends == pytest.approx([1.0] * 10 + [0.0, 0.2, 0.4, 0.6, 0.8] + [1.0] * 5)
    assert set(quantized_modules(module)) == {"net.0", "net.2", "head"}
    assert module.losses[-1] < module.losses[0]
    # Validation runs at the precision of the coming step: after 10 of 20 steps the rules begin.
    expected = {0: Precision.float, 5: Precision.float, 10: Precision.rules, 15: Precision.rules, 20: Precision.rules}
    assert dict(module.validations) == expected


def test_a_run_too_short_for_its_schedule_ends_at_the_rules(tmp_path):
    module = Module()
    short = trainer(tmp_path, QuantizationCallback(INT4, STAGED))
    short.fit_loop.epoch_loop.max_steps = 2  # fractions 0 and 1/2: no step at the rules' full precision
    short.fit(module, loader(), loader())
    assert [precision for precision, _ in module.steps][-1] is not Precision.rules or module.steps[-1][1] < 1
    assert {(layer.precision, layer.blend) for layer in quantized_modules(module).values()} == {(Precision.rules, 1.0)}


def test_target(tmp_path):
    """Rules for a part of the module are written in that part's names."""
    module = Module()
    quant = QuantConfig("first", [Rule("0", WeightSpec(4), ActivationSpec(8))])
    trainer(tmp_path, QuantizationCallback(quant, target="net"), max_steps=2).fit(module, loader())
    assert set(quantized_modules(module)) == {"net.0"}
    assert module.steps == [(Precision.rules, 1.0)] * 2


@pytest.mark.parametrize("stop", [3, 8, 12])
def test_resumes_exactly(tmp_path, stop):
    """Stopped in any phase, also in the middle of the ramp, a run ends with the weights of one that ran through.

    The loader gives the same batch over and over: where it stands is not this callback's to resume.
    """
    through = Module()
    trainer(tmp_path, QuantizationCallback(INT4, STAGED)).fit(through, loader(1))
    file = tmp_path / "stopped.ckpt"
    stopped, resumed = Module(), Module()
    trainer(tmp_path, QuantizationCallback(INT4, STAGED), StopAt(stop, file)).fit(stopped, loader(1))
    assert len(stopped.steps) == stop
    trainer(tmp_path, QuantizationCallback(INT4, STAGED)).fit(resumed, loader(1), ckpt_path=file, weights_only=True)
    assert stopped.steps + resumed.steps == through.steps
    for one, other in zip(resumed.parameters(), through.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_checkpoint_brings_its_precision(tmp_path):
    """Validating a checkpoint runs at the precision it was saved at, without any flag."""
    file = tmp_path / "stopped.ckpt"
    trainer(tmp_path, QuantizationCallback(INT4, STAGED), StopAt(8, file)).fit(Module(), loader())
    state = torch.load(file, weights_only=True)["callbacks"]["QuantizationCallback"]
    assert state["precision"] == "int8"
    weight = state["quant"]["rules"][0]["weight"]
    assert (weight["bits"], weight["granularity"], weight["range"]) == (4, "per_channel", "narrow")
    module = Module()
    trainer(tmp_path, QuantizationCallback(INT4, STAGED)).validate(
        module, loader(), ckpt_path=file, weights_only=True, verbose=False
    )
    assert {precision for _, precision in module.validations} == {Precision.int8}


def test_other_rules_are_refused(tmp_path):
    file = tmp_path / "stopped.ckpt"
    trainer(tmp_path, QuantizationCallback(INT4, STAGED), StopAt(8, file)).fit(Module(), loader())
    other = QuantConfig("int8", [Rule("**", WeightSpec(8), ActivationSpec(8))])
    with pytest.raises(UserError, match="the checkpoint was trained with quant="):
        trainer(tmp_path, QuantizationCallback(other, STAGED)).fit(
            Module(), loader(), ckpt_path=file, weights_only=True
        )


def test_epochs_count_as_steps_too(tmp_path):
    module = Module()
    schedule = ScheduleConfig([Phase(0.0, Precision.float), Phase(0.5, Precision.rules)])
    trainer(tmp_path, QuantizationCallback(INT4, schedule), max_steps=-1, max_epochs=2).fit(module, loader())
    assert [precision for precision, _ in module.steps] == [Precision.float] * 5 + [Precision.rules] * 5


def test_endless_training_has_no_schedule(tmp_path):
    with pytest.raises(UserError, match="max_steps"):
        trainer(tmp_path, QuantizationCallback(INT4, STAGED), max_steps=-1, max_epochs=-1).fit(Module(), loader())


def test_layer_statistics_are_logged(tmp_path):
    logger = pl.loggers.CSVLogger(tmp_path)
    callback = QuantizationCallback(INT4, log_every_steps=2)
    trainer(tmp_path, callback, max_steps=4, logger=logger).fit(Module(), loader())
    rows = (Path(logger.log_dir) / "metrics.csv").read_text().splitlines()
    columns = rows[0].split(",")
    assert {f"quant/net.0/weight/{what}" for what in ("sqnr_db", "clipped", "codes_used")} <= set(columns)
    values = [row.split(",")[columns.index("quant/net.0/weight/sqnr_db")] for row in rows[1:]]
    assert all(10 < float(value) < 40 for value in values)
    assert [row.split(",")[columns.index("step")] for row in rows[1:]] == ["2", "4"]
