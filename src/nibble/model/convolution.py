"""The convolution module of a Conformer block (Gulati et al., 2020, section 2.2)."""

import torch.nn.functional as F
from torch import Tensor, nn

from nibble.model.chunks import Past
from nibble.model.dropout import Dropout
from nibble.model.options import ConvolutionNorm, ModelConfig
from nibble.model.padding import MaskedBatchNorm


class DepthwiseConv(nn.Conv1d):
    """One filter a channel, same length: (B, D, T) -> (B, D, T).

    A causal one is given the frames before them too: (B, D, kernel - 1 + T) -> (B, D, T).

    Runs as a 2-D convolution of height one. Given a transposed (B, T, D) tensor that is the channels-last layout,
    which on CPU is about twenty times faster than `nn.Conv1d` for the same numbers.
    """

    same_as_base = True  # what computes with other weights may put a convolution of its own in the place of `forward`

    def __init__(self, width: int, kernel: int, causal: bool = False) -> None:
        super().__init__(width, width, kernel, padding=0 if causal else kernel // 2, groups=width)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, D, T) or, if causal, (B, D, kernel - 1 + T) -> (B, D, T)."""
        padding = (0, int(self.padding[0]))
        return F.conv2d(x.unsqueeze(2), self.weight.unsqueeze(2), self.bias, padding=padding, groups=self.groups)[
            :, :, 0
        ]


class ConvolutionModule(nn.Module):
    """LayerNorm, pointwise, GLU, depthwise, a norm, SiLU, pointwise: (B, T, D) -> (B, T, D), with C channels inside.

    Pointwise convolutions are Linear: the same product, and one kind of layer less to quantize. The norm is BatchNorm,
    as in the paper, or LayerNorm, as in icefall and in NeMo's streaming models.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width, channels, norm = config.width, config.channels, config.convolution_norm
        self.past_frames = config.kernel - 1  # of a causal one
        self.norm = nn.LayerNorm(width)
        self.pointwise1 = nn.Linear(width, 2 * channels)
        self.depthwise = DepthwiseConv(channels, config.kernel, causal=config.chunk_frames is not None)
        self.batch_norm = MaskedBatchNorm(channels) if norm is ConvolutionNorm.batch else None
        self.layer_norm = nn.LayerNorm(channels) if norm is ConvolutionNorm.layer else None
        self.pointwise2 = nn.Linear(channels, width)
        self.dropout = Dropout(config.dropout)

    def forward(self, x: Tensor, valid: Tensor, past: Past | None = None) -> Tensor:
        """x (B, T, D), valid (B, T, 1) -> (B, T, D); a causal one needs its past."""
        x = F.glu(self.pointwise1(self.norm(x).mul_(valid)), dim=2).mul_(valid)
        if past is not None:
            x = past.extend(x, self.past_frames)
        x = self.depthwise(x.transpose(1, 2)).transpose(1, 2)
        x = F.silu(self.normalized(x, valid)).mul_(valid)
        return self.dropout(self.pointwise2(x))

    def normalized(self, x: Tensor, valid: Tensor) -> Tensor:
        """The filtered x (B, T, C) through the norm before SiLU; padded frames come out with any finite value."""
        norm = self.layer_norm
        out: Tensor = norm(x) if norm is not None else self.batch_norm(x, valid)  # type: ignore[misc]
        return out
