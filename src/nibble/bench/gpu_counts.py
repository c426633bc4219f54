"""Counts what a call does on a GPU, with torch's profiler and allocator: kernels, waits of the host, memory."""

from collections.abc import Callable
from typing import NamedTuple

import torch

_LAUNCHES = ("cudaLaunchKernel", "cudaLaunchKernelExC", "cuLaunchKernel", "cuLaunchKernelEx", "cudaGraphLaunch")
_WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize")


class Counts(NamedTuple):
    """Of one call."""

    launches: int
    synchronisations: int  # where the host waits for the GPU
    bytes: int  # peak memory of tensors, above what they held before


def counts(call: Callable[[], object]) -> Counts:
    """Call once under the profiler. Call it before as well, so that nothing is compiled while profiling."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        call()
    peak = torch.cuda.max_memory_allocated() - before
    by_name = {event.key: event.count for event in profile.key_averages()}
    waits = sum(by_name.get(name, 0) for name in _WAITS)
    # The profiler itself waits once, at its end.
    return Counts(sum(by_name.get(name, 0) for name in _LAUNCHES), max(0, waits - 1), peak)


def finished(call: Callable[[], object]) -> Callable[[], None]:
    """`call`, and then wait until the GPU has finished."""

    def run() -> None:
        call()
        torch.cuda.synchronize()

    return run
