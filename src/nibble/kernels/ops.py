"""The integer operators: schema and shape function of each, in torch's namespace "nibble".

    nibble::int_matmul(x int8 (M, K), weight int8 (N, K)) -> int32 (M, N)
    nibble::int_conv2d(x int8 (B, C, H, W), weight int8 (N, C/groups, kh, kw), ...) -> int32 (B, N, H', W')

Both are exact. `nibble.kernels.reference` implements them for every device; a faster implementation registers for its
device type and must return the same integers. Results have no gradient: `nibble.quant.products` gives the
straight-through one.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from nibble.kernels import reference

torch.library.define("nibble::int_matmul", "(Tensor x, Tensor weight) -> Tensor")
torch.library.define(
    "nibble::int_conv2d",
    "(Tensor x, Tensor weight, int[2] stride, int[2] padding, int[2] dilation, int groups) -> Tensor",
)
# "default" serves every device type that nothing else is registered for.
torch.library.impl("nibble::int_matmul", "default", reference.int_matmul)
torch.library.impl("nibble::int_conv2d", "default", reference.int_conv2d)


@torch.library.register_fake("nibble::int_matmul")
def _int_matmul_shape(x: Tensor, weight: Tensor) -> Tensor:
    reference.check_matmul(x, weight)
    return x.new_empty((x.shape[0], weight.shape[0]), dtype=torch.int32)


@torch.library.register_fake("nibble::int_conv2d")
def _int_conv2d_shape(
    x: Tensor, weight: Tensor, stride: list[int], padding: list[int], dilation: list[int], groups: int
) -> Tensor:
    reference.check_conv2d(x, weight, groups)
    height, width = reference.conv_size(x, weight, stride, padding, dilation)
    return x.new_empty((x.shape[0], height, width, weight.shape[0]), dtype=torch.int32).permute(0, 3, 1, 2)


def int_matmul(x: Tensor, weight: Tensor) -> Tensor:
    """x int8 (M, K), weight int8 (N, K) -> x weight^T, int32 (M, N).

    Raises:
        RuntimeError: a tensor is not int8, or the sizes do not fit.
    """
    return torch.ops.nibble.int_matmul.default(x, weight)


def int_conv2d(
    x: Tensor,
    weight: Tensor,
    stride: Sequence[int] = (1, 1),
    padding: Sequence[int] = (0, 0),
    dilation: Sequence[int] = (1, 1),
    groups: int = 1,
) -> Tensor:
    """x int8 (B, C, H, W), weight int8 (N, C / groups, kh, kw) -> int32 (B, N, H', W') in channels-last layout.

    Raises:
        RuntimeError: a tensor is not int8, or the sizes do not fit.
    """
    return torch.ops.nibble.int_conv2d.default(x, weight, stride, padding, dilation, groups)
