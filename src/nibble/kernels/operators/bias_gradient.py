"""The gradient of a product of codes by its bias: the only one it has.

Codes have no gradient and scales are held constant, as everywhere in `nibble.quant`, whose products have the
straight-through gradients.
"""

from typing import Any

import torch
from torch import Tensor

_BIAS = 4  # its place among the arguments
_CHANNELS = 1  # their dimension in (M, N) and in (B, N, H', W')


def bias_gradient(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    """None for each argument but the bias."""
    found: list[Tensor | None] = [None] * len(ctx.needs_input_grad)
    if ctx.needs_input_grad[_BIAS]:
        others = [dim for dim in range(gradient.dim()) if dim != _CHANNELS]
        found[_BIAS] = gradient.sum(others, dtype=torch.float32)
    return tuple(found)
