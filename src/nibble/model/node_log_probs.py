"""Computes the two log-probabilities of each lattice node that the loss needs: blank and the next label."""

from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from nibble.conventions import BLANK
from nibble.model.gpu_kernels import kernels


def node_log_probs(logits: Tensor, following: Tensor) -> Tensor:
    """Log-probabilities (..., 2) of blank and of the label that follows; float32, or float64 for float64.

    The logits are lost: their memory may come to hold their gradient.

    Args:
        logits: (..., V), before the softmax.
        following: that label, (...).
    """
    if logits.is_cuda and logits.dtype != torch.float64:
        log_probs: Tensor = _ByKernels.apply(logits, following, kernels("node_log_probs_triton"))
    else:
        log_probs = _TwoLogProbs.apply(logits, following.unsqueeze(-1))
    return log_probs


def wide_type(x: Tensor) -> torch.dtype:
    """float32, or float64 for float64."""
    return torch.promote_types(x.dtype, torch.float32)


class _TwoLogProbs(torch.autograd.Function):
    """Float32 logits, the largest tensor, become probabilities and then their gradient in place."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, following: Tensor) -> Tensor:
        p = logits.detach().to(wide_type(logits))
        largest = p.amax(-1, keepdim=True)
        two = torch.cat((p[..., BLANK : BLANK + 1], p.gather(-1, following)), -1)
        torch.softmax(p, -1, out=p)
        total = largest - p.amax(-1, keepdim=True).log()  # log of the sum of e^logit, of which the largest has its p
        ctx.save_for_backward(p, following)
        ctx.dtype = logits.dtype
        return two - total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slopes: Tensor) -> tuple[Tensor, None]:
        p, following = ctx.saved_tensors
        by_blank, by_label = slopes.split(1, -1)
        gradient = p.mul_(-by_blank - by_label)
        gradient[..., BLANK : BLANK + 1] += by_blank
        return gradient.scatter_add_(-1, following, by_label).to(ctx.dtype), None


class _ByKernels(torch.autograd.Function):
    """The same on a GPU, where the logits stay in their own type until they become their gradient."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, following: Tensor, triton: ModuleType) -> Tensor:
        rows, following = logits.detach().contiguous().flatten(0, -2), following.contiguous().flatten()
        log_probs, total = triton.forward(rows, following)
        ctx.save_for_backward(rows, following, total)
        ctx.triton = triton
        ctx.shape = logits.shape
        return log_probs.view(*logits.shape[:-1], 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slopes: Tensor) -> tuple[Tensor, None, None]:
        rows, following, total = ctx.saved_tensors
        ctx.triton.backward(rows, following, total, slopes.contiguous().flatten(0, -2))
        return rows.view(ctx.shape), None, None
