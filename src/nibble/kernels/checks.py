"""Checks that several operators share. Compiled operators make the same ones, in the same words (`checks.h`)."""

import torch
from torch import Tensor

FLOATS = (torch.float16, torch.bfloat16, torch.float32)
# The largest K: int32 holds a sum of this many products, whatever the codes are.
MOST_TERMS = 2**17 - 1


def same_device(name: str, *tensors: Tensor | None) -> None:
    """Raise RuntimeError unless all tensors that are given are on one device."""
    torch._check(
        len({tensor.device for tensor in tensors if tensor is not None}) == 1,
        lambda: f"{name}: tensors are on several devices",
    )


def terms(name: str, count: int) -> None:
    """Raise RuntimeError if a sum of K = `count` products of codes may not fit into int32."""
    torch._check(count <= MOST_TERMS, lambda: f"{name}: K = {count}; give at most {MOST_TERMS}, or int32 may overflow")


def both_int8(name: str, x: Tensor, weight: Tensor) -> None:
    """Raise RuntimeError unless both factors are int8."""
    torch._check(
        x.dtype == torch.int8 and weight.dtype == torch.int8,
        lambda: f"{name}: types {x.dtype} and {weight.dtype}; both must be torch.int8",
    )


def int8(name: str, what: str, tensor: Tensor) -> None:
    """Raise RuntimeError unless a tensor is int8; `what` says which and ends with a verb."""
    torch._check(tensor.dtype == torch.int8, lambda: f"{name}: {what} {tensor.dtype}, not torch.int8")


def matrices(name: str, x: Tensor, weight: Tensor, packed: bool = False) -> None:
    """Raise RuntimeError unless x is (M, K) and weight is (N, K), or (N, ceil(K / 2)) if `packed`."""
    torch._check(
        x.dim() == weight.dim() == 2 and weight.shape[1] == ((x.shape[1] + 1) // 2 if packed else x.shape[1]),
        lambda: (
            f"{name}: sizes {tuple(x.shape)} and {tuple(weight.shape)}; "
            f"give (M, K) and {'(N, ceil(K / 2))' if packed else '(N, K)'}"
        ),
    )


def packed_bytes(name: str, packed: Tensor) -> None:
    """Raise RuntimeError unless packed codes are uint8."""
    torch._check(packed.dtype == torch.uint8, lambda: f"{name}: packed is {packed.dtype}, not torch.uint8")


def floating(name: str, x: Tensor) -> None:
    """Raise RuntimeError unless x is a float of 16 or 32 bits."""
    torch._check(x.dtype in FLOATS, lambda: f"{name}: type {x.dtype}; give float16, bfloat16 or float32")


def result_type(name: str, dtype: torch.dtype) -> None:
    """Raise RuntimeError unless a result can have this type."""
    torch._check(dtype in FLOATS, lambda: f"{name}: ask for a result in float16, bfloat16 or float32")


def float32(what: str, tensor: Tensor | None, shape: tuple[int, ...]) -> None:
    """Raise RuntimeError unless a tensor that is given is float32 of this shape."""
    typed(what, tensor, torch.float32, shape)


def typed(what: str, tensor: Tensor | None, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    """Raise RuntimeError unless a tensor that is given has this type and shape."""
    if tensor is not None:
        torch._check(
            tensor.dtype == dtype and tuple(tensor.shape) == shape,
            lambda: f"{what} is {tensor.dtype} {tuple(tensor.shape)}; give {dtype} {shape}",
        )
