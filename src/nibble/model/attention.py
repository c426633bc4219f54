"""Multi-head self-attention with relative positions (Dai et al., 2019, Transformer-XL, section 3.3).

The score of query i and key j is  (q_i + u) k_j + (q_i + v) p_{i-j}.  The first term is torch's scaled dot product,
the second enters it as an additive mask, so every product with a weight stays an `nn.Linear`.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nibble.model.chunks import Past
from nibble.model.dropout import Dropout, keep_mask


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


def _position_scores(scores: Tensor, hidden: Tensor) -> Tensor:
    """Scores by distance (B, H, T, left + 2T), hidden keys (B, 1, 1, left + T) -> scores by key, -inf where hidden."""
    if not torch.is_grad_enabled():
        return _shifted_and_hidden(scores, hidden)
    shifted: Tensor = _PositionScores.apply(scores, hidden)
    return shifted


def _shifted_and_hidden(scores: Tensor, hidden: Tensor) -> Tensor:
    return relative_shift(scores).masked_fill(hidden, float("-inf"))


class _PositionScores(torch.autograd.Function):
    """For a softmax, which gives hidden scores the gradient 0: so its gradient is moved back in one pass."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor, hidden: Tensor) -> Tensor:
        ctx.shape = scores.shape
        return _shifted_and_hidden(scores, hidden)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        moved = gradient.new_zeros(ctx.shape)
        relative_shift(moved).copy_(gradient)
        return moved, None


def _attended(query: Tensor, key: Tensor, value: Tensor, scores: Tensor, dropout: float, scale: float) -> Tensor:
    """Torch's scaled dot product, (B, H, T, D / H). With dropout on a CPU, as written out here: in half the time."""
    if not dropout or query.device.type != "cpu":
        return F.scaled_dot_product_attention(query, key, value, attn_mask=scores, dropout_p=dropout, scale=scale)
    keys = key.flatten(0, 1).transpose(1, 2)
    shares = torch.baddbmm(scores.flatten(0, 1), query.flatten(0, 1), keys, alpha=scale).softmax(2)
    return ((shares * keep_mask(shares, dropout)) @ value.flatten(0, 1)).unflatten(0, query.shape[:2])


class RelativeAttention(nn.Module):
    """LayerNorm, then relative multi-head self-attention: (B, T, D) -> (B, T, D).

    Args:
        width: D.
        heads: H.
        dropout: share of attention weights and of outputs.
        head_width: of a query, key or value; None: D / H.
    """

    def __init__(self, width: int, heads: int, dropout: float, head_width: int | None = None) -> None:
        super().__init__()
        head_width = head_width or width // heads
        inner = heads * head_width
        self.heads = heads
        self.scale = head_width**-0.5
        self.norm = nn.LayerNorm(width)
        self.query = nn.Linear(width, inner)
        self.key = nn.Linear(width, inner)
        self.value = nn.Linear(width, inner)
        self.position = nn.Linear(width, inner, bias=False)
        self.output = nn.Linear(inner, width)
        self.content_bias = nn.Parameter(torch.zeros(inner))  # u
        self.position_bias = nn.Parameter(torch.zeros(inner))  # v
        self.dropout = Dropout(dropout)

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
        attended = _attended(
            self._heads(query + self.content_bias).transpose(1, 2),
            self._heads(key).transpose(1, 2),
            self._heads(value).transpose(1, 2),
            _position_scores(by_position, (~visible).transpose(1, 2).unsqueeze(1)),
            self.dropout.p if self.training else 0.0,
            self.scale,
        )
        return self.dropout(self.output(attended.transpose(1, 2).flatten(2) * valid))

    def _heads(self, x: Tensor) -> Tensor:
        """(..., H x head width) -> (..., H, head width)."""
        return x.unflatten(-1, (self.heads, -1))
