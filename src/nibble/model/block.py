"""One Conformer block (Gulati et al., 2020, equation 1)."""

import torch
from torch import Tensor, nn

from nibble.model.attention import RelativeAttention
from nibble.model.chunks import Past
from nibble.model.convolution import ConvolutionModule
from nibble.model.feed_forward import FeedForward
from nibble.model.options import ModelConfig


class ConformerBlock(nn.Module):
    """Half a feed-forward, attention, convolution, the other half, LayerNorm: (B, T, D) -> (B, T, D)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.feed_forward1 = FeedForward(config.width, config.feed_forward_width, config.dropout)
        self.attention = RelativeAttention(config.width, config.heads, config.dropout, config.width_of_head)
        self.convolution = ConvolutionModule(config)
        self.feed_forward2 = FeedForward(config.width, config.feed_forward_width, config.dropout)
        self.norm = nn.LayerNorm(config.width)

    def forward(self, x: Tensor, positions: Tensor, valid: Tensor, past: Past | None = None) -> Tensor:
        """x (B, T, D), positions (left + 2T, D), valid (B, T, 1) -> (B, T, D); streaming alone has a past."""
        x = torch.add(x, self.feed_forward1(x, valid), alpha=0.5)
        x = x + self.attention(x, positions, valid, past)
        x = x + self.convolution(x, valid, past)
        x = torch.add(x, self.feed_forward2(x, valid), alpha=0.5)
        return self.norm(x)
