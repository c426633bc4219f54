"""What to type when a batch does not fit into memory."""

import torch

from nibble.config import Config
from nibble.errors import UserError

_CPU_ALLOCATOR = "DefaultCPUAllocator"  # torch has no error type for a full main memory, only this word in a message


def out_of_memory(error: RuntimeError, config: Config, step: int) -> UserError | None:
    """The message to show in place of torch's error; None if the error is not about memory.

    Args:
        error: what a training or validation step raised.
        config: of the run.
        step: how many optimizer steps were taken before.
    """
    on_gpu = isinstance(error, torch.OutOfMemoryError)
    if not on_gpu and _CPU_ALLOCATOR not in str(error):
        return None
    duration_s, accumulate = config.hardware.batch_duration_s, config.trainer.accumulate
    cure = (
        f"Batches of half the size, two a step, learn the same: hardware.batch_duration_s={duration_s / 2:g} "
        f"trainer.accumulate={2 * accumulate}"
    )
    if not config.loss.fused:
        cure += ", or loss=rnnt, which needs far less memory"
    where = "the GPU" if on_gpu else "this machine"
    reason = str(error).splitlines()[0]
    return UserError(f"out of memory on {where} after {step} steps: {reason} {cure}")
