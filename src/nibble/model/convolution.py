"""The convolution module of a Conformer block (Gulati et al., 2020, section 2.2)."""

import torch.nn.functional as F
from torch import Tensor, nn

from nibble.model.chunks import Past
from nibble.model.dropout import Dropout
from nibble.model.padding import MaskedBatchNorm


class DepthwiseConv(nn.Conv1d):
    """One filter a channel, same length: (B, D, T) -> (B, D, T).

    A causal one takes what is before the frames with them: (B, D, kernel - 1 + T) -> (B, D, T).

    Runs as a 2-D convolution of height one. Given a transposed (B, T, D) tensor that is the channels-last layout,
    which on CPU is about twenty times faster than `nn.Conv1d` for the same numbers.
    """

    def __init__(self, width: int, kernel: int, causal: bool = False) -> None:
        super().__init__(width, width, kernel, padding=0 if causal else kernel // 2, groups=width)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, D, T) or, if causal, (B, D, kernel - 1 + T) -> (B, D, T)."""
        padding = (0, int(self.padding[0]))
        return F.conv2d(x.unsqueeze(2), self.weight.unsqueeze(2), self.bias, padding=padding, groups=self.groups)[
            :, :, 0
        ]


class ConvolutionModule(nn.Module):
    """LayerNorm, pointwise, GLU, depthwise, BatchNorm, SiLU, pointwise: (B, T, D) -> (B, T, D).

    Pointwise convolutions are Linear: the same product, and one kind of layer less to quantize.
    """

    def __init__(self, width: int, kernel: int, dropout: float, causal: bool = False) -> None:
        super().__init__()
        self.past_frames = kernel - 1  # of a causal one
        self.norm = nn.LayerNorm(width)
        self.pointwise1 = nn.Linear(width, 2 * width)
        self.depthwise = DepthwiseConv(width, kernel, causal)
        self.batch_norm = MaskedBatchNorm(width)
        self.pointwise2 = nn.Linear(width, width)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, valid: Tensor, past: Past | None = None) -> Tensor:
        """x (B, T, D), valid (B, T, 1) -> (B, T, D); a causal one needs its past."""
        x = F.glu(self.pointwise1(self.norm(x).mul_(valid)), dim=2).mul_(valid)
        if past is not None:
            x = past.extend(x, self.past_frames)
        x = self.depthwise(x.transpose(1, 2)).transpose(1, 2)
        x = F.silu(self.batch_norm(x, valid)).mul_(valid)
        return self.dropout(self.pointwise2(x))
