"""Whether Triton and a GPU for it are there; its kernels are compiled when they are first called."""

from importlib.util import find_spec

import torch

from nibble.errors import UserError
from nibble.kernels.gpu import missing_gpu

OPERATORS = (
    "quantize_rows",
    "silu_quantize_rows",
    "norm_quantize_rows",
    "quantize_weights",
    "linear_w8a8",
    "conv2d_w8a8",
    "conv2d_relu_quantize",
)

_library: list[torch.library.Library] = []


def missing() -> str | None:
    """Why the kernels cannot serve here, with the cure; None if they can."""
    if find_spec("triton") is None:
        return "Triton is not installed; pip install triton"
    return missing_gpu()


def load() -> None:
    """Register the operators for CUDA tensors.

    Raises:
        UserError: there is no Triton, or no GPU for it.
    """
    if _library:
        return
    if (reason := missing()) is not None:
        raise UserError(f"Triton kernels: {reason}")
    from nibble.kernels.triton import convolution, linear, rows, weights  # they import Triton, which is optional

    library = torch.library.Library("nibble", "IMPL")
    for name in OPERATORS:
        file = next(file for file in (convolution, linear, rows, weights) if hasattr(file, name))
        library.impl(name, getattr(file, name), "CUDA")
    _library.append(library)
