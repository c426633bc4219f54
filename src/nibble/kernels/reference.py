"""Exact integer arithmetic in plain torch: what runs where nothing faster is registered, and what that must equal."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

# float32 holds every integer up to 2^24, and a product of two int8 codes is at most 2^14. A sum of up to 2^10
# products is therefore exact in float32, in whatever order it is taken.
EXACT_FLOAT32_TERMS = 2**10


def int_matmul(x: Tensor, weight: Tensor) -> Tensor:
    """x int8 (M, K), weight int8 (N, K) -> x weight^T, int32 (M, N)."""
    check_matmul(x, weight)
    # oneDNN reads overlapping rows (of unfold) or rows of stride 0 (of expand) wrongly.
    x, weight = x.contiguous(), weight.contiguous()
    if x.is_cuda:
        return _int_matmul_cuda(x, weight)
    if x.shape[1] == 1:  # torch 2.11 gives wrong sums of a single term; a second one of zero changes no sum
        x, weight = F.pad(x, (0, 1)), F.pad(weight, (0, 1))
    return torch._int_mm(x, weight.t())


def int_conv2d(
    x: Tensor,
    weight: Tensor,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> Tensor:
    """x int8 (B, C, H, W), weight int8 (N, C/groups, kh, kw) -> int32 (B, N, H', W') in channels-last layout.

    Without groups, an integer product of the unfolded windows and the filters. With groups, where those products are
    thin, a float32 convolution as long as that is exact.
    """
    check_conv2d(x, weight, groups)
    if groups > 1 and weight[0].numel() <= EXACT_FLOAT32_TERMS:
        out = _float_conv2d(x, weight, stride, padding, dilation, groups)
    else:
        if any(padding):
            x = F.pad(x, (padding[1], padding[1], padding[0], padding[0]))
        parts = zip(x.chunk(groups, 1), weight.chunk(groups, 0), strict=True)
        outs = [_unfolded_conv2d(part, filters, stride, dilation) for part, filters in parts]
        out = outs[0] if groups == 1 else torch.cat(outs, 1)
    return out.contiguous(memory_format=torch.channels_last)


def check_matmul(x: Tensor, weight: Tensor) -> None:
    """Raise RuntimeError unless x (M, K) and weight (N, K) are int8."""
    torch._check(x.dtype == torch.int8 and weight.dtype == torch.int8, lambda: _types("int_matmul", x, weight))
    torch._check(
        x.dim() == 2 and weight.dim() == 2 and x.shape[1] == weight.shape[1],
        lambda: f"int_matmul: sizes {tuple(x.shape)} and {tuple(weight.shape)}; give (M, K) and (N, K)",
    )


def check_conv2d(x: Tensor, weight: Tensor, groups: int, name: str = "int_conv2d") -> None:
    """Raise RuntimeError unless x (B, C, H, W) and weight (N, C/groups, kh, kw) are int8."""
    torch._check(x.dtype == torch.int8 and weight.dtype == torch.int8, lambda: _types(name, x, weight))
    torch._check(
        x.dim() == 4 and weight.dim() == 4 and x.shape[1] == weight.shape[1] * groups and weight.shape[0] % groups == 0,
        lambda: f"{name}: sizes {tuple(x.shape)} and {tuple(weight.shape)} with {groups} groups do not fit",
    )


def conv_size(
    x: Tensor, weight: Tensor, stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int]
) -> tuple[int, int]:
    """Height and width of a convolution's result."""
    height, width = (
        (x.shape[2 + i] + 2 * padding[i] - dilation[i] * (weight.shape[2 + i] - 1) - 1) // stride[i] + 1 for i in (0, 1)
    )
    return height, width


def _float_conv2d(
    x: Tensor,
    weight: Tensor,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> Tensor:
    # Channels last, because depthwise filters run some twenty times faster that way on CPU. Without cuDNN, which may
    # pick an algorithm that transforms the input (Winograd, FFT) and so rounds; and without autocast, which rounds.
    with torch.backends.cudnn.flags(enabled=False), torch.autocast(x.device.type, enabled=False):
        out = F.conv2d(
            x.float().contiguous(memory_format=torch.channels_last),
            weight.float().contiguous(memory_format=torch.channels_last),
            stride=tuple(stride),
            padding=tuple(padding),
            dilation=tuple(dilation),
            groups=groups,
        )
    return out.to(torch.int32)


def _unfolded_conv2d(x: Tensor, weight: Tensor, stride: Sequence[int], dilation: Sequence[int]) -> Tensor:
    """A convolution without padding or groups, as the product of windows (B H' W', kh kw C) and filters."""
    outputs, _, kernel_height, kernel_width = weight.shape
    spans = (dilation[0] * (kernel_height - 1) + 1, dilation[1] * (kernel_width - 1) + 1)
    windows = x.permute(0, 2, 3, 1).contiguous().unfold(1, spans[0], stride[0]).unfold(2, spans[1], stride[1])
    windows = windows[..., :: dilation[0], :: dilation[1]].permute(0, 1, 2, 4, 5, 3)
    batch, height, width = windows.shape[:3]
    filters = weight.permute(0, 2, 3, 1).reshape(outputs, -1)
    out = int_matmul(windows.reshape(batch * height * width, filters.shape[1]), filters)
    return out.view(batch, height, width, outputs).permute(0, 3, 1, 2)


def _int_matmul_cuda(x: Tensor, weight: Tensor) -> Tensor:
    # cuBLASLt wants more than 16 rows, and K and N in multiples of 8; codes of zero change no sum.
    (rows, terms), outputs = x.shape, weight.shape[0]
    if not rows or not terms or not outputs:
        return x.new_zeros((rows, outputs), dtype=torch.int32)
    x = F.pad(x, (0, -terms % 8, 0, max(0, 17 - rows)))
    weight = F.pad(weight, (0, -terms % 8, 0, -outputs % 8))
    return torch._int_mm(x, weight.t())[:rows, :outputs].contiguous()


def _types(name: str, x: Tensor, weight: Tensor) -> str:
    return f"{name}: types {x.dtype} and {weight.dtype}; both must be torch.int8"
