"""Multi-head attention with relative positions, in float32."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from nibble.kernels import checks
from nibble.kernels.operator import Operator


class RelativeAttention(NamedTuple):
    """Attention with relative positions (Dai et al., 2019, section 3.3): float32 (B, T, D). It has no gradient.

    The score of query i and key j is ((q_i + u) k_j + (q_i + v) p_{i-j}) / sqrt(D / H).
    """

    query: Tensor  # float32 (B, T, D), of the last T of S frames
    key: Tensor  # float32 (B, S, D)
    value: Tensor  # float32 (B, S, D)
    positions: Tensor  # p of the distances S - 1, ..., -T: float32 (S + T, D)
    content_bias: Tensor  # u, float32 (D,)
    position_bias: Tensor  # v, float32 (D,)
    visible: Tensor  # which keys are attended to, bool (B, S); an utterance without any gives NaN
    heads: int  # H, a divisor of D

    def check(self) -> None:
        """Raise RuntimeError unless types and sizes fit."""
        name, (*tensors, heads) = "relative_attention", self
        checks.same_device(name, *tensors)
        query, key = self.query, self.key
        torch._check(
            query.dim() == key.dim() == 3,
            lambda: f"{name}: sizes {tuple(query.shape)} and {tuple(key.shape)}; give (B, T, D) and (B, S, D)",
        )
        (batch, frames, width), keys = query.shape, key.shape[1]
        torch._check(
            heads > 0 and width > 0 and width % heads == 0, lambda: f"{name}: {heads} heads do not divide D = {width}"
        )
        torch._check(frames <= keys, lambda: f"{name}: {frames} queries of {keys} frames; give at most one a frame")
        checks.float32(f"{name}: query", query, (batch, frames, width))
        checks.float32(f"{name}: key", key, (batch, keys, width))
        checks.float32(f"{name}: value", self.value, (batch, keys, width))
        checks.float32(f"{name}: positions", self.positions, (keys + frames, width))
        checks.float32(f"{name}: content_bias", self.content_bias, (width,))
        checks.float32(f"{name}: position_bias", self.position_bias, (width,))
        checks.typed(f"{name}: visible", self.visible, torch.bool, (batch, keys))

    def shape(self) -> Tensor:
        """The result without values."""
        return torch.empty_like(self.query, memory_format=torch.contiguous_format)

    def reference(self) -> Tensor:
        """The result in plain torch."""
        return self.by_scaled_dot_product() if self.query.is_cuda else self.by_scores()

    def by_scores(self) -> Tensor:
        """From all scores (B, H, T, S)."""
        frames, keys = self.query.shape[1], self.key.shape[1]
        by_content = self._heads(self.query + self.content_bias) @ self._heads(self.key).transpose(-2, -1)
        by_distance = self._heads(self.query + self.position_bias) @ self._heads(self.positions).transpose(-2, -1)
        row, column = (torch.arange(count, device=self.query.device) for count in (frames, keys))
        by_position = by_distance.gather(3, (frames - 1 - row.unsqueeze(1) + column).expand_as(by_content))
        scores = (by_content + by_position) * self._scale
        weights = scores.masked_fill(~self.visible[:, None, None], float("-inf")).softmax(3)
        return (weights @ self._heads(self.value)).transpose(1, 2).flatten(2)

    def by_scaled_dot_product(self) -> Tensor:
        """By torch's scaled dot product, which keeps no scores; those of the positions are its mask."""
        frames, keys = self.query.shape[1], self.key.shape[1]
        asked = self._heads((self.query + self.position_bias) * self._scale)
        by_distance = asked @ self._heads(self.positions).transpose(-2, -1)  # (B, H, T, S + T)
        # Key j of query i is in column T - 1 - i + j: rows of the flattened matrix begin S + T - 1 after each other.
        rows = by_distance.flatten(2)[..., frames - 1 : -1].unflatten(2, (frames, keys + frames - 1))[..., :keys]
        mask = rows.masked_fill(~self.visible[:, None, None], float("-inf"))
        given = self._heads(self.query + self.content_bias), self._heads(self.key), self._heads(self.value)
        out = F.scaled_dot_product_attention(*given, attn_mask=mask, scale=self._scale)
        return out.transpose(1, 2).flatten(2).masked_fill_(~self.visible.any(1)[:, None, None], float("nan"))

    @property
    def _scale(self) -> float:
        return float((self.query.shape[2] // self.heads) ** -0.5)

    def _heads(self, x: Tensor) -> Tensor:
        """(..., frames, D) -> (..., H, frames, D / H)."""
        return x.unflatten(-1, (self.heads, -1)).transpose(-3, -2)


relative_attention = Operator(
    "relative_attention(Tensor query, Tensor key, Tensor value, Tensor positions, Tensor content_bias, "
    "Tensor position_bias, Tensor visible, int heads) -> Tensor",
    RelativeAttention,
)
