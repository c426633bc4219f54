"""What makes rows and their codes in one pass, in plain torch: what runs where nothing faster is registered.

A float step comes first, in float32. It may be summed in another order elsewhere, so a code of another implementation
may be off by one where the value lies between two.
"""

import torch.nn.functional as F
from torch import Tensor

from nibble.kernels import reference_linear


def silu_quantize_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """quantize_rows of SiLU(x): x (..., K) -> codes int8 (..., K), scale float32 (..., 1)."""
    reference_linear.check_quantize_rows(x)
    return reference_linear.quantize_rows(F.silu(x.float()))


def norm_quantize_rows(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """quantize_rows of the layer norm of x (..., K) with weight and bias float32 (K,)."""
    check_norm_quantize_rows(x, weight, bias)
    return reference_linear.quantize_rows(F.layer_norm(x.float(), weight.shape, weight, bias, eps))


def check_norm_quantize_rows(x: Tensor, weight: Tensor, bias: Tensor) -> None:
    """Raise RuntimeError unless types and sizes fit."""
    reference_linear.check_quantize_rows(x)
    for what, tensor in (("weight", weight), ("bias", bias)):
        reference_linear.check_float(f"norm_quantize_rows: {what}", tensor, tuple(x.shape[-1:]))
