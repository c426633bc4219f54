"""Exact integer arithmetic in plain torch: what runs where nothing faster is registered, and what that must equal."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

# float32 holds every integer up to 2^24, and a product of two int8 codes is at most 2^14. A sum of up to 2^10
# products is therefore exact in float32, in whatever order it is taken.
EXACT_FLOAT32_TERMS = 2**10
# int32 holds a sum of up to this many products, whatever the codes are.
MOST_TERMS = 2**17 - 1
# The largest stride, padding or dilation. Sizes that are computed from them stay far below 2^63.
LARGEST_STEP = 2**15 - 1

CUBLAS_BYTES = 2**31 - 1  # the most that a call of cuBLAS gets or gives


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
    check_conv2d(x, weight, stride, padding, dilation, groups)
    if groups > 1 and weight[0].numel() <= EXACT_FLOAT32_TERMS and x.numel():
        out = _float_conv2d(x, weight, stride, padding, dilation, groups)
    else:
        x = _padded(x, (padding[1], padding[1], padding[0], padding[0]))
        parts = zip(x.chunk(groups, 1), weight.chunk(groups, 0), strict=True)
        outs = [_unfolded_conv2d(part, filters, stride, dilation) for part, filters in parts]
        out = outs[0] if groups == 1 else torch.cat(outs, 1)
    return out.contiguous(memory_format=torch.channels_last)


def check_matmul(x: Tensor, weight: Tensor) -> None:
    """Raise RuntimeError unless x (M, K) and weight (N, K) are int8."""
    check_devices("int_matmul", x, weight)
    torch._check(x.dtype == torch.int8 and weight.dtype == torch.int8, lambda: _types("int_matmul", x, weight))
    torch._check(
        x.dim() == 2 and weight.dim() == 2 and x.shape[1] == weight.shape[1],
        lambda: f"int_matmul: sizes {tuple(x.shape)} and {tuple(weight.shape)}; give (M, K) and (N, K)",
    )
    check_terms("int_matmul", x.shape[1])


def check_conv2d(
    x: Tensor,
    weight: Tensor,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    name: str = "int_conv2d",
) -> None:
    """Raise RuntimeError unless x (B, C, H, W) and weight (N, C/groups, kh, kw) are int8 and can be convolved so."""
    check_devices(name, x, weight)
    torch._check(x.dtype == torch.int8 and weight.dtype == torch.int8, lambda: _types(name, x, weight))
    torch._check(
        x.dim() == weight.dim() == 4
        and groups > 0
        and x.shape[1] == weight.shape[1] * groups
        and weight.shape[0] % groups == 0,
        lambda: f"{name}: sizes {tuple(x.shape)} and {tuple(weight.shape)} with {groups} groups do not fit",
    )
    torch._check(weight.numel() > 0, lambda: f"{name}: filters of {tuple(weight.shape)} are empty")
    check_terms(name, weight.shape[1] * weight.shape[2] * weight.shape[3])
    _check_steps(f"{name}: stride", stride, 1)
    _check_steps(f"{name}: padding", padding, 0)
    _check_steps(f"{name}: dilation", dilation, 1)
    torch._check(
        all(size > 0 for size in conv_size(x, weight, stride, padding, dilation)),
        lambda: (
            f"{name}: filters of {tuple(weight.shape)} are larger than an input of {tuple(x.shape)} with its padding"
        ),
    )


def _check_steps(what: str, steps: Sequence[int], least: int) -> None:
    torch._check(
        len(steps) == 2 and all(least <= step <= LARGEST_STEP for step in steps),
        lambda: f"{what} is {list(steps)}; give two numbers, of height and width, {least} to {LARGEST_STEP}",
    )


def check_terms(name: str, terms: int) -> None:
    """Raise RuntimeError if a sum of K = `terms` products of codes may not fit into int32."""
    torch._check(terms <= MOST_TERMS, lambda: f"{name}: K = {terms}; give at most {MOST_TERMS}, or int32 may overflow")


def check_devices(name: str, *tensors: Tensor | None) -> None:
    """Raise RuntimeError unless all tensors that are given are on one device."""
    torch._check(
        len({tensor.device for tensor in tensors if tensor is not None}) == 1,
        lambda: f"{name}: tensors are on several devices",
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
    x = _padded(x, (0, -terms % 8))
    weight = _padded(weight, (0, -terms % 8, 0, -outputs % 8))

    def product(part: Tensor) -> Tensor:
        enough = _padded(part, (0, 0, 0, max(0, 17 - len(part))))
        return torch._int_mm(enough, weight.t())[: len(part), :outputs]

    # In parts that have less than 2^31 bytes, which are all that a call counts; each begins at an aligned address.
    most = max(16, CUBLAS_BYTES // max(x.shape[1], 4 * len(weight)) // 16 * 16)
    parts = [product(part) for part in x.split(most)]
    return parts[0].contiguous() if len(parts) == 1 else torch.cat(parts)


def _padded(x: Tensor, by: tuple[int, ...]) -> Tensor:
    """F.pad, which copies even where there is nothing to add."""
    return F.pad(x, by) if any(by) else x


def _types(name: str, x: Tensor, weight: Tensor) -> str:
    return f"{name}: types {x.dtype} and {weight.dtype}; both must be torch.int8"
