"""One of eight processes that train together, without the others: torch's own DDP and FSDP on tensors without values.

torch's fake process group takes every collective and moves nothing, so what goes over the network has no cost here.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any
from unittest import mock

import torch
import torch.distributed as dist
from pytorch_lightning.strategies import DDPStrategy, ModelParallelStrategy, Strategy
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.nn.parallel import DistributedDataParallel
from torch.nn.parallel import distributed as ddp
from torch.testing._internal.distributed.fake_pg import FakeStore
from torch.utils._mode_utils import no_dispatch

from nibble.config import Config
from nibble.training.launch import strategy
from nibble.training.module import TransducerModule

NUMBER = 8


class _Nothing:
    """A stream or an event of CUDA: everything runs in order."""

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def __getattr__(self, _: str) -> Callable[..., "_Nothing"]:
        return _Nothing


# The first three exchange values among processes, the next two time a step; streams and events are those of a GPU.
_PRETENCE: list[tuple[Any, str, Any]] = [
    (ddp, "_verify_param_shape_across_processes", lambda *_: None),
    (ddp, "_sync_module_states", lambda *_, **__: None),
    (dist.Reducer, "_rebuild_buckets", lambda _: False),
    (dist.Reducer, "prepare_for_forward", lambda _: None),
    (dist.Logger, "set_runtime_stats_and_log", lambda _: None),
    (torch.cuda, "device_count", lambda: NUMBER),
    (torch.cuda, "Stream", _Nothing),
    (torch.cuda, "Event", _Nothing),
    (torch.cuda, "current_stream", lambda *_: _Nothing()),
    (torch.cuda, "stream", lambda _: nullcontext()),
]


@contextmanager
def processes() -> Iterator[None]:
    """Inside, this process is the first of `NUMBER`; within `pretend.gpu`."""
    with ExitStack() as stack:
        for target, name, value in _PRETENCE:
            stack.enter_context(mock.patch.object(target, name, value))
        with no_dispatch():
            dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=NUMBER)
        try:
            yield
        finally:
            dist.destroy_process_group()


def lightning_strategy(config: Config) -> Strategy:
    """Lightning's strategy for a run of these options, with its processes."""
    chosen = strategy(config)
    if isinstance(chosen, ModelParallelStrategy):
        with no_dispatch():
            chosen._device_mesh = {"data_parallel": init_device_mesh("cuda", (NUMBER,))}
    return chosen


def parallel_step(module: TransducerModule, chosen: Strategy) -> Callable[..., Tensor]:
    """The training step as Lightning calls it under a strategy; FSDP has its own way into the module's."""
    if not isinstance(chosen, DDPStrategy):
        return module.training_step
    module.forward = module.training_step  # type: ignore[method-assign]
    wrapped = DistributedDataParallel(module, device_ids=[0], **chosen._ddp_kwargs)
    wrapped.register_comm_hook(None, _summed)  # what DDP does by itself, whose result is not there to be waited for
    return wrapped


def _summed(_state: object, bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:
    dist.all_reduce(bucket.buffer())
    done: torch.futures.Future[Tensor] = torch.futures.Future()
    done.set_result(bucket.buffer())
    return done
