"""The options of the machine: `hardware=`."""

from dataclasses import dataclass
from enum import StrEnum

from nibble.errors import UserError, nearest
from nibble.ranges import COUNT, POSITIVE, Range, check

_ACCELERATORS = ("cpu", "gpu", "cuda", "auto")
_PRECISIONS = ("32-true", "bf16-mixed", "16-mixed", "bf16-true", "16-true", "64-true")


class Strategy(StrEnum):
    """How several processes train together."""

    auto = "auto"  # ddp, or nothing of the kind for one process
    ddp = "ddp"  # each has the whole model
    fsdp = "fsdp"  # each keeps a share of parameters, gradients and optimizer state


@dataclass
class HardwareConfig:
    """`hardware=`: devices, batch size, and the budget of a deployment there."""

    accelerator: str = "cpu"  # as Lightning: cpu, gpu, auto
    devices: int = 1  # on each machine, a process each; -1: all GPUs
    nodes: int = 1  # machines
    strategy: Strategy = Strategy.auto  # of several processes, one a device, each with a batch of batch_duration_s
    precision: str = "32-true"  # of the float parts, as Lightning: 32-true, bf16-mixed
    compile: bool = False  # torch.compile on what lies between two products; on a GPU, fewer kernels
    threads: int | None = None  # CPU threads; null: torch's choice
    batch_duration_s: float = 60.0  # speech in a batch, per device
    max_batch_utterances: int | None = None  # null: as many as batch_duration_s holds
    buckets: int = 10  # of similar duration
    workers: int = 1  # loader processes
    max_bundle_bytes: int | None = None  # budget, printed beside the measurement
    max_rtf: float | None = None  # budget: processing time / audio time

    def __post_init__(self) -> None:
        if self.devices != -1:
            check(self, "hardware.", devices=COUNT)
        check(
            self,
            "hardware.",
            nodes=COUNT,
            threads=Range(1, 4_096),
            batch_duration_s=POSITIVE,
            max_batch_utterances=COUNT,
            buckets=COUNT,
            workers=Range(0, 1_024),
            max_bundle_bytes=Range(1, 2**63),
            max_rtf=POSITIVE,
        )
        if self.accelerator not in _ACCELERATORS:
            raise UserError(
                f"hardware.accelerator={self.accelerator}; nearest: {nearest(self.accelerator, _ACCELERATORS)}"
            )
        if self.precision not in _PRECISIONS:
            raise UserError(f"hardware.precision={self.precision}; nearest: {nearest(self.precision, _PRECISIONS)}")
