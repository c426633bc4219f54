"""The feed-forward module of a Conformer block (Gulati et al., 2020, section 2.3)."""

import torch.nn.functional as F
from torch import Tensor, nn

from nibble.model.dropout import Dropout


class FeedForward(nn.Module):
    """LayerNorm, expansion, SiLU, projection: (B, T, D) -> (B, T, D). The block adds half of it to its input."""

    def __init__(self, width: int, inner_width: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.expansion = nn.Linear(width, inner_width)
        self.projection = nn.Linear(inner_width, width)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """x (B, T, D), valid (B, T, 1) -> (B, T, D)."""
        hidden = self.dropout(F.silu(self.expansion(self.norm(x).mul_(valid))))
        return self.dropout(self.projection(hidden.mul_(valid)))
