"""What a run refuses, it refuses before it starts, and says why."""

import errno
import warnings

import pytest
import torch

from nibble.commands import hydra_command
from nibble.errors import UserError
from nibble.training.module import MAX_SKIPPED_STEPS, TransducerModule
from nibble.training.run import check_hardware, check_rules, train


def test_a_rule_that_matches_nothing_stops_before_data_is_touched(make_config):
    config = make_config(
        "quant=int4", "quant.rules=[{match: 'encodr.**', weight: {bits: 4}}]", "data.corpus_dir=/nowhere"
    )
    with pytest.raises(UserError, match=r"encodr.*nearest.*encoder"):
        train(config)


def test_every_quantized_configuration_covers_the_default_model(make_config):
    for quant in ("int8", "int4", "int4a4", "int2"):
        check_rules(make_config(f"quant={quant}"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there(make_config):
    with pytest.raises(UserError, match=r"hardware=cpu"):
        check_hardware(make_config("hardware=gpu"))


def test_a_driver_older_than_torch(make_config, monkeypatch):
    def unavailable():
        warnings.warn(
            "CUDA initialization: The NVIDIA driver on your system is too old (found version 11040).", stacklevel=1
        )
        return False

    monkeypatch.setattr(torch.cuda, "is_available", unavailable)
    with pytest.raises(UserError, match=r"accelerator=gpu.*driver on your system is too old \(found.*hardware=cpu"):
        check_hardware(make_config("hardware=gpu"))


def test_a_gpu_older_than_ampere(make_config, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (7, 5))
    with pytest.raises(UserError, match=r"accelerator=gpu.*version 7\.5; 8\.0 \(Ampere\).*hardware=cpu"):
        check_hardware(make_config("hardware=gpu"))


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9.00 GiB."),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
    ],
)
def test_a_batch_that_does_not_fit_into_memory(make_config, monkeypatch, error):
    def step(*_):
        raise error

    monkeypatch.setattr(TransducerModule, "loss", step)
    config = make_config("hardware.batch_duration_s=10", "trainer.accumulate=3")
    with pytest.raises(UserError, match=r"after 0 steps.*allocate 9.*batch_duration_s=5 trainer\.accumulate=6"):
        train(config)


def test_another_error_of_a_step_is_shown_as_it_is(make_config, monkeypatch):
    def step(*_):
        raise RuntimeError("sizes differ")

    monkeypatch.setattr(TransducerModule, "loss", step)
    with pytest.raises(RuntimeError, match="sizes differ"):
        train(make_config())


def test_a_run_folder_that_cannot_be_made(make_config, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match=r"hydra\.run\.dir"):
        train(make_config(f"run_dir={tmp_path}/file/run"))


def test_a_full_disk_keeps_the_older_checkpoint(make_config, monkeypatch, tmp_path):
    config = make_config("trainer.max_steps=6", "trainer.checkpoint_every_steps=2", "trainer.validate_every_steps=100")
    saves = []

    def save(checkpoint, path):
        saves.append(path)
        if len(saves) == 2:
            path.write_bytes(b"half of it")
            raise OSError(errno.ENOSPC, "No space left on device")
        original(checkpoint, path)

    original = torch.save
    monkeypatch.setattr(torch, "save", save)
    with pytest.raises(UserError, match=r"last\.ckpt.*No space left.*resume="):
        train(config)
    folder = tmp_path / "runs/tiny/checkpoints"
    assert torch.load(folder / "last.ckpt", weights_only=True)["global_step"] == 2
    assert [path.name for path in folder.iterdir()] == ["last.ckpt"]


def test_an_error_in_a_loader_process_is_one_paragraph():
    trace = "Caught UserError in DataLoader worker process 0.\nOriginal Traceback:\n  ...\n"
    assert hydra_command.message(UserError(f"{trace}nibble.errors.UserError: a.flac is damaged")) == "a.flac is damaged"


class Diverged(TransducerModule):
    def loss(self, batch):
        return super().loss(batch) * torch.nan


def test_ten_losses_in_a_row_that_are_not_finite_stop_the_run(make_config, monkeypatch):
    monkeypatch.setattr("nibble.training.run.TransducerModule", Diverged)
    with pytest.raises(UserError, match=rf"{MAX_SKIPPED_STEPS} steps in a row.*\d+-\d+-\d+"):
        train(make_config("trainer.max_steps=30"))


class DivergedTwice(TransducerModule):
    calls = 0

    def loss(self, batch):
        DivergedTwice.calls += 1
        loss = super().loss(batch)
        return loss * torch.nan if DivergedTwice.calls in (2, 3) else loss


def test_a_few_bad_losses_are_skipped(make_config, monkeypatch, tmp_path):
    monkeypatch.setattr("nibble.training.run.TransducerModule", DivergedTwice)
    train(make_config("trainer.max_steps=5", "trainer.validate_every_steps=100"))
    saved = torch.load(tmp_path / "runs/tiny/checkpoints/last.ckpt", weights_only=True)
    assert saved["global_step"] == 5
    assert all(torch.isfinite(tensor).all() for tensor in saved["state_dict"].values() if tensor.is_floating_point())


def test_wandb_online_without_a_key_stops_before_data_is_touched(make_config, monkeypatch, tmp_path):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    config = make_config("logger=wandb", "logger.wandb_mode=online", "data.corpus_dir=/nowhere")
    with pytest.raises(UserError, match=r"logger\.wandb_mode=online needs a key .*wandb login.*WANDB_API_KEY"):
        train(config)


def test_tensorboard_without_its_package(make_config, monkeypatch):
    monkeypatch.setattr("nibble.training.loggers.find_spec", lambda _name: None)
    with pytest.raises(UserError, match=r"pip install -e \.\[tensorboard\]"):
        train(make_config("logger=tensorboard", "data.corpus_dir=/nowhere"))
