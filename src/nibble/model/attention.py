"""Multi-head self-attention with relative positions (Dai et al., 2019, Transformer-XL, section 3.3).

The score of query i and key j is  (q_i + u) k_j + (q_i + v) p_{i-j}.  The first term is torch's scaled dot product,
the second enters it as an additive mask, so every product with a weight stays an `nn.Linear`.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def relative_positions(frames: int, width: int, device: torch.device) -> Tensor:
    """Sinusoidal encodings (2T, D) of the distances T - 1, ..., 0, ..., -T with T = `frames`.

    The last distance is never used: an even count lets `relative_shift` be a view.
    """
    distances = torch.arange(frames - 1, -frames - 1, -1, device=device, dtype=torch.float32)
    exponents = torch.arange(0, width, 2, device=device, dtype=torch.float32) / width
    angles = distances.unsqueeze(1) / 10_000**exponents
    return torch.stack((angles.sin(), angles.cos()), dim=2).flatten(1)[:, :width]


def relative_shift(scores: Tensor) -> Tensor:
    """Scores by distance (B, H, T, 2T) -> scores by key (B, H, T, T), without a copy.

    Key j of query i stands at column T - 1 - i + j, so in the flattened matrix each row begins 2T - 1 after the last.
    """
    frames = scores.size(2)
    flat = scores.flatten(2)[..., frames - 1 : -1]
    return flat.unflatten(2, (frames, 2 * frames - 1))[..., :frames]


class RelativeAttention(nn.Module):
    """LayerNorm, then relative multi-head self-attention: (B, T, D) -> (B, T, D)."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.scale = (width // heads) ** -0.5
        self.norm = nn.LayerNorm(width)
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.position = nn.Linear(width, width, bias=False)
        self.output = nn.Linear(width, width)
        self.content_bias = nn.Parameter(torch.zeros(width))  # u
        self.position_bias = nn.Parameter(torch.zeros(width))  # v
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, positions: Tensor, valid: Tensor) -> Tensor:
        """x (B, T, D), positions (2T, D), valid (B, T, 1) -> (B, T, D)."""
        x = self.norm(x) * valid
        query = self.query(x)
        # One product a head over all queries of the batch: broadcasting would copy the positions for each utterance.
        by_position = torch.einsum(
            "bthd,phd->bhtp",
            self._heads((query + self.position_bias) * self.scale),
            self._heads(self.position(positions)),
        )
        padding = (~valid).transpose(1, 2).unsqueeze(1)  # (B, 1, 1, T)
        attended = F.scaled_dot_product_attention(
            self._heads(query + self.content_bias).transpose(1, 2),
            self._heads(self.key(x)).transpose(1, 2),
            self._heads(self.value(x)).transpose(1, 2),
            attn_mask=relative_shift(by_position).masked_fill(padding, float("-inf")),
            dropout_p=self.dropout.p if self.training else 0.0,
            scale=self.scale,
        )
        return self.dropout(self.output(attended.transpose(1, 2).flatten(2) * valid))

    def _heads(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., H, D / H)."""
        return x.unflatten(-1, (self.heads, -1))
