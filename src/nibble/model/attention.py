"""Multi-head self-attention with relative positions (Dai et al., 2019, Transformer-XL, section 3.3).

The score of query i and key j is  (q_i + u) k_j + (q_i + v) p_{i-j}.  The first term is torch's scaled dot product,
the second enters it as an additive mask, so every product with a weight stays an `nn.Linear`.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nibble.model.chunks import Past


def relative_positions(frames: int, width: int, device: torch.device, left: int = 0) -> Tensor:
    """Sinusoidal encodings (left + 2T, D) of the distances left + T - 1, ..., 0, ..., -T with T = `frames`.

    The last distance is never used: with it, `relative_shift` can be a view.

    Args:
        frames: T.
        width: D.
        device: where to.
        left: frames before the first query that are keys as well.
    """
    distances = torch.arange(left + frames - 1, -frames - 1, -1, device=device, dtype=torch.float32)
    exponents = torch.arange(0, width, 2, device=device, dtype=torch.float32) / width
    angles = distances.unsqueeze(1) / 10_000**exponents
    return torch.stack((angles.sin(), angles.cos()), dim=2).flatten(1)[:, :width]


def relative_shift(scores: Tensor) -> Tensor:
    """Scores by distance (B, H, T, left + 2T) -> scores by key (B, H, T, left + T), without a copy.

    Key j of query i stands at column T - 1 - i + j, so in the flattened matrix each row begins left + 2T - 1 after the
    last.
    """
    frames, distances = scores.shape[2:]
    flat = scores.flatten(2)[..., frames - 1 : -1]
    return flat.unflatten(2, (frames, distances - 1))[..., : distances - frames]


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

    def forward(self, x: Tensor, positions: Tensor, valid: Tensor, past: Past | None = None) -> Tensor:
        """x (B, T, D), positions (left + 2T, D), valid (B, T, 1) -> (B, T, D); left is 0 without a past."""
        x = self.norm(x).mul_(valid)
        query, key, value = self.query(x), self.key(x), self.value(x)
        visible = valid
        if past is not None:
            key, value = past.extend(torch.cat((key, value), dim=2), past.left).chunk(2, dim=2)
            visible = past.visible
        # One product a head over all queries of the batch: broadcasting would copy the positions for each utterance.
        by_position = torch.einsum(
            "bthd,phd->bhtp",
            self._heads((query + self.position_bias) * self.scale),
            self._heads(self.position(positions)),
        )
        hidden = (~visible).transpose(1, 2).unsqueeze(1)  # (B, 1, 1, left + T)
        attended = F.scaled_dot_product_attention(
            self._heads(query + self.content_bias).transpose(1, 2),
            self._heads(key).transpose(1, 2),
            self._heads(value).transpose(1, 2),
            attn_mask=relative_shift(by_position).masked_fill(hidden, float("-inf")),
            dropout_p=self.dropout.p if self.training else 0.0,
            scale=self.scale,
        )
        return self.dropout(self.output(attended.transpose(1, 2).flatten(2) * valid))

    def _heads(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., H, D / H)."""
        return x.unflatten(-1, (self.heads, -1))
