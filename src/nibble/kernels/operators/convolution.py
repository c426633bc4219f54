"""2-D convolutions of codes: their sums, their values, and the codes of their values after a ReLU.

H' and W' are the height and the width of a result. All results are in channels-last layout.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from nibble.kernels import checks
from nibble.kernels.operator import Operator
from nibble.kernels.operators.bias_gradient import bias_gradient
from nibble.kernels.operators.matmul import IntMatmul, padded
from nibble.kernels.operators.rows import QuantizeRows

# float32 holds every integer up to 2^24, and a product of two int8 codes is at most 2^14. A sum of up to 2^10
# products is therefore exact in float32, in whatever order it is taken.
EXACT_FLOAT32_TERMS = 2**10
# The largest stride, padding or dilation. Sizes that are computed from them stay far below 2^63.
LARGEST_STEP = 2**15 - 1


class IntConv2d(NamedTuple):
    """The sums of a convolution: int32 (B, N, H', W')."""

    x: Tensor  # int8 (B, C, H, W)
    weight: Tensor  # int8 (N, C / groups, kh, kw)
    stride: Sequence[int] = (1, 1)  # of height and width, as are padding and dilation
    padding: Sequence[int] = (0, 0)  # zeros on both sides
    dilation: Sequence[int] = (1, 1)  # from one tap to the next
    groups: int = 1  # of channels

    def check(self, name: str = "int_conv2d") -> None:
        """Raise RuntimeError unless types, sizes and steps fit."""
        x, weight, groups = self.x, self.weight, self.groups
        checks.same_device(name, x, weight)
        checks.both_int8(name, x, weight)
        torch._check(
            x.dim() == weight.dim() == 4
            and groups > 0
            and x.shape[1] == weight.shape[1] * groups
            and weight.shape[0] % groups == 0,
            lambda: f"{name}: sizes {tuple(x.shape)} and {tuple(weight.shape)} with {groups} groups do not fit",
        )
        torch._check(weight.numel() > 0, lambda: f"{name}: filters of {tuple(weight.shape)} are empty")
        checks.terms(name, weight.shape[1] * weight.shape[2] * weight.shape[3])
        _check_steps(f"{name}: stride", self.stride, 1)
        _check_steps(f"{name}: padding", self.padding, 0)
        _check_steps(f"{name}: dilation", self.dilation, 1)
        torch._check(
            all(size > 0 for size in self.out_size()),
            lambda: (
                f"{name}: filters of {tuple(weight.shape)} are larger than an input of {tuple(x.shape)} "
                "with its padding"
            ),
        )

    def out_size(self) -> tuple[int, int]:
        """H' and W'."""
        height, width = (
            (size + 2 * padding - dilation * (taps - 1) - 1) // stride + 1
            for size, taps, stride, padding, dilation in zip(
                self.x.shape[2:], self.weight.shape[2:], self.stride, self.padding, self.dilation, strict=True
            )
        )
        return height, width

    def shape(self) -> Tensor:
        """The result without values."""
        size = (self.x.shape[0], *self.out_size(), self.weight.shape[0])
        return self.x.new_empty(size, dtype=torch.int32).permute(0, 3, 1, 2)

    def reference(self) -> Tensor:
        """The result in plain torch.

        Without groups, an integer product of the unfolded windows and the filters. With groups, where those products
        are thin, a float32 convolution as long as that is exact.
        """
        if self.groups > 1 and self.weight[0].numel() <= EXACT_FLOAT32_TERMS and self.x.numel():
            out = self._in_float()
        else:
            x = padded(self.x, (self.padding[1], self.padding[1], self.padding[0], self.padding[0]))
            parts = zip(x.chunk(self.groups, 1), self.weight.chunk(self.groups, 0), strict=True)
            outs = [_unfolded(part, filters, self.stride, self.dilation) for part, filters in parts]
            out = outs[0] if self.groups == 1 else torch.cat(outs, 1)
        return out.contiguous(memory_format=torch.channels_last)

    def _in_float(self) -> Tensor:
        # Channels last, because depthwise filters run some twenty times faster that way on CPU. Without cuDNN, which
        # may pick an algorithm that transforms the input (Winograd, FFT) and so rounds; and without autocast.
        with torch.backends.cudnn.flags(enabled=False), torch.autocast(self.x.device.type, enabled=False):
            out = F.conv2d(
                self.x.float().contiguous(memory_format=torch.channels_last),
                self.weight.float().contiguous(memory_format=torch.channels_last),
                stride=tuple(self.stride),
                padding=tuple(self.padding),
                dilation=tuple(self.dilation),
                groups=self.groups,
            )
        return out.to(torch.int32)


class Conv2dW8A8(NamedTuple):
    """sums scale weight_scale + bias, from left to right in float32: (B, N, H', W') of type `dtype`."""

    codes: Tensor  # int8 (B, C, H, W)
    scale: Tensor  # float32 (B,)
    weight: Tensor  # int8 (N, C / groups, kh, kw)
    weight_scale: Tensor  # float32 (N,)
    bias: Tensor | None  # float32 (N,)
    stride: Sequence[int] = (1, 1)  # of height and width, as are padding and dilation
    padding: Sequence[int] = (0, 0)
    dilation: Sequence[int] = (1, 1)
    groups: int = 1
    dtype: torch.dtype = torch.float32  # of the result, which is rounded once, at the end

    @property
    def sums(self) -> IntConv2d:
        """The convolution without scales and bias."""
        return IntConv2d(self.codes, self.weight, self.stride, self.padding, self.dilation, self.groups)

    def check(self, name: str = "conv2d_w8a8") -> None:
        """Raise RuntimeError unless types, sizes and steps fit."""
        checks.result_type(name, self.dtype)
        checks.same_device(name, self.codes, self.scale, self.weight, self.weight_scale, self.bias)
        self.sums.check(name)
        checks.float32(f"{name}: scale", self.scale, (self.codes.shape[0],))
        checks.float32(f"{name}: weight_scale", self.weight_scale, (self.weight.shape[0],))
        checks.float32(f"{name}: bias", self.bias, (self.weight.shape[0],))

    def shape(self) -> Tensor:
        """The result without values."""
        return self.sums.shape().to(self.dtype)

    def reference(self) -> Tensor:
        """The result in plain torch."""
        out = self.sums.reference().to(torch.float32)
        out = out.mul_(self.scale.view(-1, 1, 1, 1)).mul_(self.weight_scale.view(-1, 1, 1))
        return (out if self.bias is None else out.add_(self.bias.view(-1, 1, 1))).to(self.dtype)


class Conv2dReluQuantize(NamedTuple):
    """Codes of ReLU(conv2d_w8a8(...)) with one scale for each utterance: int8 (B, N, H', W'), float32 (B,)."""

    codes: Tensor  # as in `Conv2dW8A8`, up to the bias
    scale: Tensor
    weight: Tensor
    weight_scale: Tensor
    bias: Tensor | None
    stride: Sequence[int]
    heights: Tensor  # int64 (B,): the part of H' that is not padding; beyond it codes are zero

    @property
    def convolution(self) -> Conv2dW8A8:
        """The convolution alone."""
        return Conv2dW8A8(self.codes, self.scale, self.weight, self.weight_scale, self.bias, self.stride)

    def check(self) -> None:
        """Raise RuntimeError unless types, sizes and strides fit."""
        name = "conv2d_relu_quantize"
        checks.same_device(name, self.codes, self.heights)
        self.convolution.check(name)
        checks.typed(f"{name}: heights", self.heights, torch.int64, tuple(self.codes.shape[:1]))

    def shape(self) -> tuple[Tensor, Tensor]:
        """The result without values."""
        return self.convolution.sums.shape().to(torch.int8), torch.empty_like(self.scale)

    def reference(self) -> tuple[Tensor, Tensor]:
        """The result in plain torch."""
        out = self.convolution.reference().relu_()
        spoken = torch.arange(out.shape[2], device=out.device) < self.heights.unsqueeze(1)
        out *= spoken.view(len(out), 1, out.shape[2], 1)
        codes, scale = QuantizeRows(out.permute(0, 2, 3, 1).flatten(1)).reference()
        return codes.view(len(out), *out.shape[2:], out.shape[1]).permute(0, 3, 1, 2), scale.view(-1)


_STEPS = "int[2] stride=1, int[2] padding=0, int[2] dilation=1, int groups=1"
_FACTORS = "Tensor codes, Tensor scale, Tensor weight, Tensor weight_scale, Tensor? bias"

int_conv2d = Operator(f"int_conv2d(Tensor x, Tensor weight, {_STEPS}) -> Tensor", IntConv2d)
conv2d_w8a8 = Operator(
    f"conv2d_w8a8({_FACTORS}, {_STEPS}, ScalarType dtype=float) -> Tensor", Conv2dW8A8, bias_gradient
)
conv2d_relu_quantize = Operator(
    f"conv2d_relu_quantize({_FACTORS}, int[2] stride, Tensor heights) -> (Tensor codes, Tensor scale)",
    Conv2dReluQuantize,
)


def _check_steps(what: str, steps: Sequence[int], least: int) -> None:
    torch._check(
        len(steps) == 2 and all(least <= step <= LARGEST_STEP for step in steps),
        lambda: f"{what} is {list(steps)}; give two numbers, of height and width, {least} to {LARGEST_STEP}",
    )


def _unfolded(x: Tensor, weight: Tensor, stride: Sequence[int], dilation: Sequence[int]) -> Tensor:
    """A convolution without padding or groups, as the product of windows (B H' W', kh kw C) and filters."""
    outputs, _, kernel_height, kernel_width = weight.shape
    spans = (dilation[0] * (kernel_height - 1) + 1, dilation[1] * (kernel_width - 1) + 1)
    windows = x.permute(0, 2, 3, 1).contiguous().unfold(1, spans[0], stride[0]).unfold(2, spans[1], stride[1])
    windows = windows[..., :: dilation[0], :: dilation[1]].permute(0, 1, 2, 4, 5, 3)
    batch, height, width = windows.shape[:3]
    filters = weight.permute(0, 2, 3, 1).reshape(outputs, -1)
    out = IntMatmul(windows.reshape(batch * height * width, filters.shape[1]), filters).reference()
    return out.view(batch, height, width, outputs).permute(0, 3, 1, 2)
