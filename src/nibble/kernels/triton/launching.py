"""Launches Triton kernels."""

from typing import Any

import torch
import triton


def launch(kernel: triton.JITFunction, programs: int | tuple[int, ...], *arguments: Any, **options: Any) -> None:
    """Run `kernel` on the GPU that holds its first tensor.

    Args:
        kernel: of `triton.jit`.
        programs: the number of programs, along up to three axes.
        arguments: those of the kernel, in order; the first one is a tensor.
        options: its constants (`tl.constexpr`), `num_warps` and `num_stages`.
    """
    grid = programs if isinstance(programs, tuple) else (programs,)
    # Triton launches on the current GPU, which need not be the tensor's. For a tensor on a CPU nothing changes.
    with torch.cuda.device_of(arguments[0]):
        # A fused multiply-add would round once where the reference rounds twice.
        kernel[grid](*arguments, **{"enable_fp_fusion": False, **options})
