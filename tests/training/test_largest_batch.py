"""The largest batch goes forward and backward before the first step, and leaves no trace."""

import pytest
import torch
from pytorch_lightning import Callback

from nibble.data.sampler import TrainSampler
from nibble.errors import UserError
from nibble.training import run as training_run
from nibble.training.largest_batch import LargestBatch
from nibble.training.module import TransducerModule
from nibble.training.run import train

STEPS = ["trainer.max_steps=3", "trainer.validate_every_steps=99", "trainer.checkpoint_every_steps=1"]
EVERYTHING = [
    "quant=int4_static",
    "schedule.phases=[{at: 0, precision: rules}]",
    "trainer.ema_decay=0.9",
    "trainer.accumulate=2",
    "model.dropout=0.1",
    "data.spec_augment.time_masks=2",
    "data.recording.probability=0.5",
    "hardware.max_batch_utterances=3",
]


@pytest.fixture
def rehearsed(monkeypatch):
    """The batches that went through `rehearse`."""
    batches = []
    rehearse = TransducerModule.rehearse

    def note(self, batch):
        batches.append(batch)
        return rehearse(self, batch)

    monkeypatch.setattr(TransducerModule, "rehearse", note)
    return batches


class Watched(LargestBatch):
    def on_train_start(self, trainer, module) -> None:
        before = torch.get_rng_state()
        super().on_train_start(trainer, module)
        assert torch.equal(torch.get_rng_state(), before)
        assert all(weight.grad is None for weight in module.parameters())


def test_it_leaves_no_trace(make_config, monkeypatch, rehearsed, train_until, tmp_path) -> None:
    """Not in weights, statistics, averages, optimizer, position or what is drawn; nor in a run that goes on."""
    monkeypatch.setattr(training_run, "LargestBatch", Watched)
    train(make_config(*EVERYTHING, *STEPS, "run_dir=runs/tiny/checked"))
    assert len(rehearsed) == 1
    stopped = make_config(*EVERYTHING, *STEPS, "run_dir=runs/tiny/stopped")
    train_until(2, stopped)
    train(make_config("resume=runs/tiny/stopped"))
    assert len(rehearsed) == 3
    monkeypatch.setattr(training_run, "LargestBatch", lambda _: Callback())
    train(make_config(*EVERYTHING, *STEPS, "run_dir=runs/tiny/unchecked"))
    assert len(rehearsed) == 3
    ends = [
        torch.load(tmp_path / f"runs/tiny/{name}/checkpoints/last.ckpt", weights_only=True)
        for name in ("checked", "stopped", "unchecked")
    ]
    for end in ends:
        assert end["global_step"] == 3
        assert end["nibble"]["heard_s"] == ends[-1]["nibble"]["heard_s"]
        assert end["SpeechDataModule"] == ends[-1]["SpeechDataModule"]
        for part in ("state_dict", "optimizer_states"):
            torch.testing.assert_close(end[part], ends[-1][part], rtol=0, atol=0)


def test_it_is_the_batch_with_the_longest_utterances(make_config, rehearsed) -> None:
    config = make_config("trainer.max_steps=1", "trainer.validate_every_steps=99", "hardware.batch_duration_s=8")
    train(config)
    (batch,) = rehearsed
    data = training_run.SpeechDataModule(config.data, config.features, config.hardware, config.seed)
    sampler = TrainSampler(data.cuts(["train-tiny"]), config.hardware, config.seed)
    made = [[cut.duration for cut in cuts] for epoch in range(5) for cuts in sampler.epoch(epoch)]
    longest_s = max(max(durations_s) for durations_s in made)
    assert max(batch.frame_counts) == pytest.approx(100 * longest_s, abs=1)
    assert len(batch) == int(8 / longest_s) > 1
    assert max(len(one) * max(one) ** 2 for one in made) <= len(batch) * longest_s**2 + 1e-6


@pytest.mark.parametrize(
    ("options", "cure"),
    [
        (["hardware.batch_duration_s=20"], r"hardware\.batch_duration_s=10 trainer\.accumulate=2$"),
        (
            ["hardware.batch_duration_s=4"],
            r"batch_duration_s=2 trainer\.accumulate=2 data\.max_duration_s=2, without the utterances",
        ),
        (["hardware.batch_duration_s=2"], r"is a batch by itself, .*: data\.max_duration_s=2, or cut them"),
        (["loss=rnnt_torchaudio"], r"accumulate=2, or loss=rnnt"),
    ],
)
def test_a_largest_batch_that_does_not_fit(make_config, monkeypatch, options, cure) -> None:
    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9.00 GiB.")

    monkeypatch.setattr(TransducerModule, "rehearse", full)
    with pytest.raises(
        UserError, match=rf"with the largest batch, \d+ utterances of up to \d\.\d s: CUDA out .*{cure}"
    ):
        train(make_config(*options))
