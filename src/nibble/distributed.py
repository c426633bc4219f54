"""Collectives between the processes that train one run. In a run of one process they change nothing.

All processes must call them in the same order; the tensors are on the device that they compute on.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.nn.functional import all_reduce

Value = TypeVar("Value")


def started() -> tuple[int, int]:
    """(rank, number) of this process among those that were started to train together; (0, 1) if it is alone."""
    for rank, number in (("RANK", "WORLD_SIZE"), ("SLURM_PROCID", "SLURM_NTASKS")):
        if rank in os.environ and number in os.environ:
            return int(os.environ[rank]), int(os.environ[number])
    return 0, 1


def count() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def total(x: Tensor) -> Tensor:
    """The sum of x over the processes, x of any shape; its gradient reaches the x of each."""
    return x if count() == 1 else all_reduce(x)


@torch.no_grad()
def largest(x: Tensor) -> Tensor:
    """The largest of x over the processes, element by element."""
    if count() == 1:
        return x
    x = x.clone()
    dist.all_reduce(x, dist.ReduceOp.MAX)
    return x


def highest(number: int, device: torch.device) -> int:
    """The largest `number` of all processes."""
    return number if count() == 1 else int(largest(torch.tensor(number, device=device)))


def gathered(value: Value) -> list[Value]:
    """`value` of each process, in the order of ranks; anything that pickles."""
    if count() == 1:
        return [value]
    values: list[Value | None] = [None] * count()
    dist.all_gather_object(values, value)
    return values  # type: ignore[return-value]


@contextmanager
def whole(module: nn.Module) -> Iterator[None]:
    """Inside, the parameters of `module` are whole in each process, which under FSDP has a share; to be read only."""
    if not isinstance(module, FSDPModule):
        yield
        return
    module.unshard()
    try:
        yield
    finally:
        module.reshard()
