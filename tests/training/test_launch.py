"""The processes of a run: started, told of signals, ended with one another; their errors are passed on."""

import os
import signal
import sys
from pathlib import Path

import pytest

from nibble import provenance
from nibble.errors import Interrupted, UserError
from nibble.runs import records
from nibble.training import launch
from nibble.training.run import train


@pytest.fixture
def as_processes(monkeypatch):
    """Every process runs this program instead, where `rank` is its rank and `folder` that of the run."""

    def use(program: str) -> None:
        begin = "import os, sys, time\nfrom pathlib import Path\nfolder = Path(sys.argv[1])"
        words = [sys.executable, "-c", f"{begin}\nrank = int(os.environ['RANK'])\n{program}"]
        monkeypatch.setattr(launch, "command", lambda folder: [*words, str(folder)])

    return use


def test_a_run_of_two_processes_ends_in_one_record(make_config):
    config = make_config("hardware.devices=2", "trainer.max_steps=2", "quant=int4", "schedule=from_scratch")
    record = train(config)
    (kept,) = records.read(Path("runs/records.jsonl"))
    assert (kept.wer, kept.quant) == (record["wer"], "int4")
    assert kept.command == provenance.command(), "not what was typed"
    assert Path("runs/tiny/bundle/model.safetensors").is_file()
    assert Path("runs/tiny/rank1.log").read_text() == ""


def test_each_is_told_which_it_is(as_processes, tmp_path):
    as_processes("(folder / str(rank)).write_text(os.environ['WORLD_SIZE'])")
    launch.start(tmp_path, 3)
    assert [(tmp_path / str(rank)).read_text() for rank in range(3)] == ["3", "3", "3"]


def test_an_error_of_one_ends_all_and_is_passed_on(as_processes, tmp_path, monkeypatch):
    monkeypatch.setattr(launch, "_PATIENCE_S", 0.2)
    as_processes("if rank == 0: time.sleep(60)\n(folder / 'rank1.error').write_text('no such corpus')\nsys.exit(1)")
    with pytest.raises(UserError, match="no such corpus"):
        launch.start(tmp_path, 2)
    as_processes("if rank == 0: time.sleep(60)\nprint('what it said', flush=True)\nos._exit(9)")
    with pytest.raises(UserError, match=r"process 1 of 2 ended with exit code 9; what it said stands in .*rank1\.log"):
        launch.start(tmp_path, 2)
    assert (tmp_path / "rank1.log").read_text() == "what it said\n"


def test_a_signal_reaches_all(as_processes, tmp_path):
    """The first process tells this one that all are there, by the signal that a user would send."""
    as_processes(
        "import signal\n"
        "def stop(*_): (folder / f'{rank}.stopped').touch(); sys.exit(130)\n"
        "signal.signal(signal.SIGINT, stop)\n"
        "(folder / f'{rank}.ready').touch()\n"
        "while rank == 0 and not (folder / '1.ready').exists(): time.sleep(0.01)\n"
        f"if rank == 0: os.kill({os.getpid()}, signal.SIGINT)\n"
        "time.sleep(60)"
    )
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(Interrupted):
        launch.start(tmp_path, 2)
    assert (tmp_path / "0.stopped").exists()
    assert (tmp_path / "1.stopped").exists()
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize(
    ("overrides", "environment", "expected"),
    [
        (["hardware.devices=-1"], {}, "is all GPUs, and there is none here; give hardware.devices=1"),
        (["hardware.nodes=2"], {}, r"nodes=2 needs a process for each device.*hydra/launcher=slurm"),
        (["hardware.devices=2"], {"SLURM_PROCID": "0", "SLURM_NTASKS": "4"}, "4 processes were started.*are 2; give"),
        (["hardware.strategy=fsdp", "trainer.ema_decay=0.9"], {}, r"FSDP spreads; use hardware\.strategy=ddp"),
    ],
)
def test_processes_that_cannot_be(make_config, monkeypatch, overrides, environment, expected):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(launch.torch.cuda, "device_count", lambda: 0)
    with pytest.raises(UserError, match=expected):
        train(make_config(*overrides))
