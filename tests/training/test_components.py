"""A callback, a logger and a metric that only a configuration names."""

import csv
from pathlib import Path

import pytest
import pytorch_lightning as pl
from pytorch_lightning.loggers import CSVLogger
from torchmetrics import Metric

from nibble.config import portable
from nibble.errors import UserError
from nibble.training.components import build, classes
from nibble.training.run import train

HERE = "test_components"


class Counting(pl.Callback):
    """Counts steps, and says so at the end."""

    def __init__(self, file: str) -> None:
        self.file, self.steps = Path(file), 0

    def on_train_batch_end(self, *_):
        self.steps += 1

    def on_train_end(self, *_):
        self.file.write_text(str(self.steps))


class Elsewhere(CSVLogger):
    """A logger of one's own."""


def test_each_is_added_in_the_configuration_alone(make_config):
    config = make_config(
        "trainer.max_steps=2",
        "trainer.validate_every_steps=2",
        "metrics=cer",
        f"+callbacks.counting={{_target_: {HERE}.Counting, file: counted}}",
        f"+logger.others.mine={{_target_: {HERE}.Elsewhere, save_dir: mine, name: '', version: ''}}",
    )
    train(config)
    assert Path("counted").read_text() == "2"
    for metrics in ("runs/tiny/csv/metrics.csv", "mine/metrics.csv"):
        with Path(metrics).open(newline="") as file:
            rows = [row for row in csv.DictReader(file) if row["val_wer"]]
        assert len(rows) == 1
        assert float(rows[0]["val_cer"]) >= 0
    kept = portable(config)
    assert (kept.callbacks, kept.metrics, kept.logger.others) == ({}, {}, {}), "a bundle names no class"


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({}, r"callbacks.x has no _target_; give the class"),
        ({"_target_": "no.such.Class"}, r"callbacks.x._target_=no.such.Class cannot be imported: .*no"),
        ({"_target_": "os.system", "command": "true"}, r"callbacks.x._target_=os.system cannot be imported"),
        ({"_target_": "pathlib.Path"}, r"_target_=pathlib.Path is no pytorch_lightning.callbacks.callback.Callback"),
        (
            {"_target_": "pytorch_lightning.callbacks.Timer", "dura": 1},
            r"callbacks.x: Timer cannot be made with .*dura",
        ),
    ],
)
def test_what_is_no_callback_is_refused_and_never_called(entry, message):
    with pytest.raises(UserError, match=message):
        build(pl.Callback, "callbacks", {"x": entry})


def test_a_kind_is_told_from_another():
    entry = {"x": {"_target_": "torchmetrics.text.CharErrorRate"}}
    assert list(classes(Metric, "metrics", entry)) == ["x"]
    with pytest.raises(UserError, match="is no pytorch_lightning"):
        classes(pl.Callback, "callbacks", entry)
