"""Four-fold subsampling of log-mel frames by two strided convolutions (Gulati et al., 2020, section 2)."""

from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nibble.model.padding import valid_frames

MIN_FRAMES = 7  # the receptive field of one output frame
FACTOR = 4  # input frames from one output frame to the next

Count = TypeVar("Count", int, Tensor)


def output_length(frames: Count) -> Count:
    """Output frames T' for `frames` input frames; at least one, because short input is padded to `MIN_FRAMES`."""
    frames = frames.clamp(min=MIN_FRAMES) if isinstance(frames, Tensor) else max(frames, MIN_FRAMES)
    return ((frames - 1) // 2 - 1) // 2


class Subsampling(nn.Module):
    """Two 3x3 convolutions with stride 2 and ReLU, then a projection: (B, T, F) -> (B, T', D)."""

    def __init__(self, mel_bins: int, channels: int, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, channels, kernel_size=3, stride=2)
        self.conv2 = nn.Conv2d(channels, channels, kernel_size=3, stride=2)
        self.output = nn.Linear(channels * (((mel_bins - 1) // 2 - 1) // 2), width)
        for conv in (self.conv1, self.conv2):
            nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
            nn.init.zeros_(conv.bias)  # type: ignore[arg-type]

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """features (B, T, F) with padding 0, lengths (B,) -> (B, T', D), (B,)."""
        if (missing := MIN_FRAMES - features.size(1)) > 0:
            features = F.pad(features, (0, 0, 0, missing))
        lengths = (lengths.clamp(min=MIN_FRAMES) - 1) // 2
        x = self.conv1(features.unsqueeze(3).permute(0, 3, 1, 2))  # (B, C, T/2, F/2), channels last: faster on CPU
        x = _masked_relu(x, lengths)
        lengths = (lengths - 1) // 2
        x = _masked_relu(self.conv2(x), lengths)  # (B, C, T', F/4)
        return self.output(x.permute(0, 2, 3, 1).flatten(2)), lengths

    def without_padding(self, features: Tensor) -> Tensor:
        """As `forward`, of rows that are filled to the end: (R, T, F) -> (R, T', D)."""
        x = self.conv1(features.unsqueeze(3).permute(0, 3, 1, 2)).relu_()
        x = self.conv2(x).relu_()
        return self.output(x.permute(0, 2, 3, 1).flatten(2))


def _masked_relu(x: Tensor, lengths: Tensor) -> Tensor:
    """ReLU of x (B, C, T, F) and zeros in padding, in place."""
    with torch.no_grad():  # ReLU passes no gradient on to what is zero
        x.mul_(valid_frames(lengths, x.size(2)).unsqueeze(1))
    return x.relu_()
