"""Starts and checks the processes of a run on several devices, and chooses Lightning's strategy.

On one machine `train` starts them itself, each as `python -m nibble.commands.training_process RUN_DIR`. On several
machines, Slurm (srun, or hydra/launcher=slurm) or torchrun has started them before.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType

import pytorch_lightning as pl
import torch
from pytorch_lightning.strategies import DDPStrategy, ModelParallelStrategy

from nibble import distributed, provenance
from nibble.config import Config
from nibble.errors import Interrupted, UserError
from nibble.hardware import HardwareConfig, Strategy
from nibble.runs.run_folder import RunFolder

_PATIENCE_S = 10.0  # for the other processes to end, once one has failed
_POLL_S = 0.05


def count(hardware: HardwareConfig) -> int:
    """How many processes the run needs: one for each device."""
    devices = torch.cuda.device_count() if hardware.devices == -1 else hardware.devices
    return devices * hardware.nodes


def check(options: Config) -> None:
    """Raise `UserError` unless the processes that the run is to have are there, or can be started here."""
    hardware, wanted, started = options.hardware, count(options.hardware), distributed.started()[1]
    if wanted < 1:
        raise UserError("hardware.devices=-1 is all GPUs, and there is none here; give hardware.devices=1")
    if started > 1 and started != wanted:
        raise UserError(
            f"{started} processes were started, as RANK or SLURM_PROCID say, and hardware.nodes={hardware.nodes} x "
            f"hardware.devices={hardware.devices} are {wanted}; give as many devices a node, and nodes, as there are "
            "processes"
        )
    if hardware.nodes > 1 and started == 1:
        raise UserError(
            f"hardware.nodes={hardware.nodes} needs a process for each device, started on each node: "
            "hydra/launcher=slurm does, or srun, or torchrun"
        )
    if hardware.strategy is Strategy.fsdp and options.trainer.ema_decay is not None:
        raise UserError("trainer.ema_decay keeps a copy of all weights, which FSDP spreads; use hardware.strategy=ddp")


def strategy(options: Config) -> pl.strategies.Strategy | str:
    """Lightning's strategy for the processes of the run."""
    wanted = count(options.hardware)
    if wanted == 1:
        return "auto"
    if options.hardware.strategy is Strategy.fsdp:
        return ModelParallelStrategy(wanted, tensor_parallel_size=1, save_distributed_checkpoint=False)
    # A learned scale has no gradient in float phases, nor have the norms of a size that a step doesn't train. Buffers
    # need no broadcast: all processes compute the same. Where gradients are views of the buckets that are summed, no
    # sum is copied back.
    learned = any(rule.weight is not None and rule.weight.learned for rule in options.quant.rules)
    unused = learned or bool(options.model.sizes)
    return DDPStrategy(broadcast_buffers=False, find_unused_parameters=unused, gradient_as_bucket_view=True)


def start(folder: Path, number: int) -> None:
    """Train the run of `folder` in `number` processes; the first one shows the progress.

    The others print to a log in the folder.

    Raises:
        UserError: a process failed; what it said, or where to read it.
        Interrupted: Ctrl-C or SIGTERM, which each process is told; the run is saved.
    """
    port, run = _free_port(), RunFolder(folder)
    with ExitStack() as stack:
        started = []
        for rank in range(number):
            run.error(rank).unlink(missing_ok=True)
            log = None if rank == 0 else stack.enter_context(run.log(rank).open("w"))
            started.append(
                subprocess.Popen(
                    command(folder),
                    env=_environment(rank, number, port),
                    stdin=subprocess.PIPE,  # closed when this process ends, however it ends: then they end too
                    stdout=log,
                    stderr=log,
                    start_new_session=True,  # Ctrl-C comes from here alone
                )
            )
        with _passing_signals_to(started):
            failed = _wait(started)
    if failed is None:
        return
    for rank in range(number):  # the process that failed first may have failed because of another
        if run.error(rank).is_file():
            raise UserError(run.error(rank).read_text(encoding="utf-8"))
    code = started[failed].returncode
    if code in (128 + signal.SIGINT, 128 + signal.SIGTERM):
        raise Interrupted(code - 128)
    where = "above" if failed == 0 else f"in {run.log(failed)}"
    raise UserError(f"process {failed} of {number} ended with exit code {code}; what it said stands {where}")


def command(folder: Path) -> list[str]:
    """The command that starts one of the processes."""
    return [sys.executable, "-m", "nibble.commands.training_process", str(folder)]


def _environment(rank: int, number: int, port: int) -> dict[str, str]:
    """The environment that tells Lightning and torch the rank of a process, without a scheduler's variables."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "TORCHELASTIC_"))}
    ranks = {"RANK": rank, "LOCAL_RANK": rank, "NODE_RANK": 0, "WORLD_SIZE": number, "MASTER_PORT": port}
    told = {"MASTER_ADDR": "127.0.0.1", provenance.COMMAND: provenance.command()}
    return kept | {name: str(value) for name, value in ranks.items()} | told


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def _passing_signals_to(started: list[subprocess.Popen[bytes]]) -> Iterator[None]:
    def send(number: int, _frame: FrameType | None) -> None:
        for process in started:
            process.send_signal(number)

    previous = {number: signal.signal(number, send) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _wait(started: list[subprocess.Popen[bytes]]) -> int | None:
    """Wait until all have ended; the rank of the first that failed, after which the others are ended too."""
    while True:
        codes = [process.poll() for process in started]
        failed = next((rank for rank, code in enumerate(codes) if code), None)
        if failed is not None:
            deadline = time.monotonic() + _PATIENCE_S
            while time.monotonic() < deadline and any(process.poll() is None for process in started):
                time.sleep(_POLL_S)
            for process in started:
                process.kill()
                process.wait()
            return failed
        if all(code == 0 for code in codes):
            return None
        time.sleep(_POLL_S)
