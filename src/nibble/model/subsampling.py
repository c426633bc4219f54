"""Subsampling: strided convolutions over log-mel features, then a projection to the model's width."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nibble.model.encoder import Count
from nibble.model.options import ModelConfig, SubsamplingKind
from nibble.model.padding import valid_frames


class Subsampling(nn.Module):
    """Two 3x3 convolutions with stride 2 and ReLU, then a projection: (B, T, F) -> (B, T', D), T' about T / 4.

    As Gulati et al. (2020), section 2. An utterance shorter than the seven frames that one encoded frame sees is filled
    up with zeros.
    """

    padding = 0  # zeros on each side, in time and in frequency, of the input of each convolution

    def __init__(self, mel_bins: int, channels: int, width: int) -> None:
        super().__init__()
        self.factor = 4
        self.conv1 = nn.Conv2d(1, channels, kernel_size=3, stride=2, padding=self.padding)
        self.conv2 = nn.Conv2d(channels, channels, kernel_size=3, stride=2, padding=self.padding)
        self.output = nn.Linear(channels * self._halved(self._halved(mel_bins)), width)
        for conv in (self.conv1, self.conv2):
            nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
            nn.init.zeros_(conv.bias)  # type: ignore[arg-type]

    @property
    def min_frames(self) -> int:
        """Feature frames that an utterance is filled up to."""
        return 1 if self.padding else 2 * self.factor - 1

    def output_length(self, frames: Count) -> Count:
        """Encoded frames of `frames` feature frames; at least one."""
        frames = frames.clamp(min=self.min_frames) if isinstance(frames, Tensor) else max(frames, self.min_frames)
        for _ in range(self.factor.bit_length() - 1):
            frames = self._halved(frames)
        return frames

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """features (B, T, F) with padding 0, lengths (B,) -> (B, T', D), (B,)."""
        if (missing := self.min_frames - features.size(1)) > 0:
            features = F.pad(features, (0, 0, 0, missing))
        lengths = self._halved(lengths.clamp(min=self.min_frames))
        x = self.conv1(features.unsqueeze(3).permute(0, 3, 1, 2))  # (B, C, T/2, F/2), channels last: faster on CPU
        x, lengths = self._after_first(_masked_relu(x, lengths), lengths)
        return self.output(x.permute(0, 2, 3, 1).flatten(2)), lengths

    def without_padding(self, features: Tensor) -> Tensor:
        """As `forward`, for rows that are full to the end: (R, T, F) -> (R, T', D)."""
        x = self.conv1(features.unsqueeze(3).permute(0, 3, 1, 2)).relu_()
        x = self.conv2(x).relu_()
        return self.output(x.permute(0, 2, 3, 1).flatten(2))

    def _after_first(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """x (B, C, T/2, F/2) -> (B, C, T', F'), and the encoded lengths (B,)."""
        lengths = self._halved(lengths)
        return _masked_relu(self.conv2(x), lengths), lengths

    def _halved(self, frames: Count) -> Count:
        """Frames, or mel bins, after one convolution."""
        return (frames + (2 * self.padding - 1)) // 2  # one launch on a GPU, not one for each number


class PaddedSubsampling(Subsampling):
    """As `Subsampling`, with a frame and a mel bin of zeros on each side of every convolution's input.

    NeMo's `striding`. No utterance is too short for it.
    """

    padding = 1


class DepthwiseSubsampling(PaddedSubsampling):
    """A 3x3 convolution and one or two depthwise-separable ones, all with stride 2: (B, T, F) -> (B, T', D).

    As FastConformer (Rekesh et al., 2023, section 2.1): T' is about T / 4 or T / 8.

    Args:
        mel_bins: F.
        channels: of every convolution.
        width: D.
        factor: 4 or 8.
    """

    def __init__(self, mel_bins: int, channels: int, width: int, factor: int) -> None:
        nn.Module.__init__(self)
        self.factor = factor
        self.conv1 = nn.Conv2d(1, channels, kernel_size=3, stride=2, padding=self.padding)
        nn.init.kaiming_normal_(self.conv1.weight, nonlinearity="relu")
        nn.init.zeros_(self.conv1.bias)  # type: ignore[arg-type]
        bins = self._halved(mel_bins)
        self.separable = nn.ModuleList()
        for _ in range(factor.bit_length() - 2):
            self.separable.append(SeparableConv(channels))
            bins = self._halved(bins)
        self.output = nn.Linear(channels * bins, width)

    def without_padding(self, features: Tensor) -> Tensor:
        """Not to be called: at the edges of a row it would see zeros where the utterance goes on."""
        raise NotImplementedError

    def _after_first(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        for conv in self.separable:
            lengths = self._halved(lengths)
            x = _masked_relu(conv(x, lengths), lengths)
        return x, lengths


class SeparableConv(nn.Module):
    """A 3x3 filter with stride 2 for each channel, then a projection across channels: (B, C, T, F) -> (B, C, T/2, F/2).

    The projection, elsewhere a 1x1 convolution, is a Linear: the same product, and one kind of layer less to quantize.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, kernel_size=3, stride=2, padding=1, groups=channels)
        self.pointwise = nn.Linear(channels, channels)
        nn.init.kaiming_normal_(self.depthwise.weight, nonlinearity="linear")
        nn.init.kaiming_normal_(self.pointwise.weight, nonlinearity="relu")
        for layer in (self.depthwise, self.pointwise):
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """x (B, C, T, F), lengths of the result (B,) -> (B, C, T/2, F/2)."""
        x = self.depthwise(x)
        # Padding is zero before each product, so that an activation's scale is that of real frames.
        x = x * valid_frames(lengths, x.size(2)).unsqueeze(1)
        out: Tensor = self.pointwise(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return out


def make_subsampling(config: ModelConfig, mel_bins: int) -> Subsampling:
    """The subsampling that the options ask for."""
    channels = config.subsampling_channels or config.width
    if config.subsampling is SubsamplingKind.depthwise:
        return DepthwiseSubsampling(mel_bins, channels, config.width, config.subsampling_factor)
    kind = PaddedSubsampling if config.subsampling is SubsamplingKind.padded else Subsampling
    return kind(mel_bins, channels, config.width)


def _masked_relu(x: Tensor, lengths: Tensor) -> Tensor:
    """ReLU of x (B, C, T, F), and zeros in padding, in place."""
    with torch.no_grad():  # ReLU passes no gradient on to what is zero
        x.mul_(valid_frames(lengths, x.size(2)).unsqueeze(1))
    return x.relu_()
