"""Explains what to type when a batch does not fit into memory."""

import torch

from nibble.config import Config
from nibble.errors import UserError

_CPU_ALLOCATOR = "DefaultCPUAllocator"  # torch has no error type for a full main memory, only this word in a message


def out_of_memory(error: RuntimeError, config: Config, when: str, longest_s: float = 0.0) -> UserError | None:
    """The message that replaces torch's error; None if the error is not about memory.

    Args:
        error: what a training or validation step raised.
        config: of the run.
        when: such as "after 3 steps".
        longest_s: of the utterances of the batch, if it is known.
    """
    on_gpu = isinstance(error, torch.OutOfMemoryError)
    if not on_gpu and _CPU_ALLOCATOR not in str(error):
        return None
    where = "the GPU" if on_gpu else "this machine"
    reason = str(error).splitlines()[0]
    return UserError(f"out of memory on {where} {when}: {reason} {_cure(config, longest_s)}")


def _cure(config: Config, longest_s: float) -> str:
    duration_s = config.hardware.batch_duration_s
    if longest_s > duration_s:
        return (
            f"The longest utterance is a batch by itself, beyond hardware.batch_duration_s={duration_s:g}; "
            f"leave out such utterances: data.max_duration_s={duration_s:g}, or cut them where they pause"
        )
    cure = (
        f"Batches of half the size, two a step, learn the same: hardware.batch_duration_s={duration_s / 2:g} "
        f"trainer.accumulate={2 * config.trainer.accumulate}"
    )
    if longest_s > duration_s / 2:
        cure += f" data.max_duration_s={duration_s / 2:g}, without the utterances that are longer"
    if not config.loss.fused:
        cure += ", or loss=rnnt, which needs far less memory"
    return cure
