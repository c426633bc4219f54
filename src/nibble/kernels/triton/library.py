"""Whether Triton can run here, and the operators that it implements. It compiles a kernel when it is first called."""

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import torch

from nibble.errors import UserError
from nibble.kernels.gpu import missing_gpu

OPERATORS = (
    "quantize_rows",
    "silu_quantize_rows",
    "norm_quantize_rows",
    "quantize_weights",
    "linear_w8a8",
    "linear_w4a8",
    "conv2d_w8a8",
    "conv2d_relu_quantize",
)

_library: list[torch.library.Library] = []


def missing() -> str | None:
    """Why the kernels cannot run here, with the cure; None if they can."""
    if find_spec("triton") is None:
        return "Triton is not installed; pip install triton"
    return missing_gpu()


def load() -> None:
    """Register the operators for CUDA tensors, except those that the CUDA library has.

    Raises:
        UserError: there is no Triton, or no GPU for it.
    """
    if _library:
        return
    if (reason := missing()) is not None:
        raise UserError(f"Triton kernels: {reason}")
    library = torch.library.Library("nibble", "IMPL")
    for name, function in functions().items():
        if not torch._C._dispatch_has_kernel_for_dispatch_key(f"nibble::{name}", "CUDA"):
            library.impl(name, function, "CUDA")
    _library.append(library)


def functions() -> dict[str, Callable[..., Any]]:
    """The name of each operator and the function that implements it, of the operator's arguments."""
    from nibble.kernels import ops
    from nibble.kernels.triton import convolution, linear, rows, weights  # they import Triton, which is optional

    return {
        "quantize_rows": ops.quantize_rows.implemented_by(rows.quantize_rows),
        "silu_quantize_rows": ops.silu_quantize_rows.implemented_by(rows.silu_quantize_rows),
        "norm_quantize_rows": ops.norm_quantize_rows.implemented_by(rows.norm_quantize_rows),
        "quantize_weights": ops.quantize_weights.implemented_by(weights.quantize_weights),
        "linear_w8a8": ops.linear_w8a8.implemented_by(linear.linear_w8a8),
        "linear_w4a8": ops.linear_w4a8.implemented_by(linear.linear_w4a8),
        "conv2d_w8a8": ops.conv2d_w8a8.implemented_by(convolution.conv2d_w8a8),
        "conv2d_relu_quantize": ops.conv2d_relu_quantize.implemented_by(convolution.conv2d_relu_quantize),
    }
