"""Dropout (Srivastava et al., 2014) that costs little on a CPU too."""

import torch
from torch import Tensor, nn


class Dropout(nn.Dropout):
    """As `nn.Dropout`, which on a CPU may spend a twelfth of a training step on drawing numbers."""

    def forward(self, input: Tensor) -> Tensor:
        """Input of any shape; the same shape."""
        if not self.training or input.device.type != "cpu" or not self.p:
            return super().forward(input)
        return input * keep_mask(input, self.p)


def keep_mask(x: Tensor, p: float) -> Tensor:
    """Independent draws in the shape and type of x: 0 with probability p to 16 bits, else what makes their mean 1.

    Four draws are the parts of one random number of 64 bits.
    """
    count, dropped = x.numel(), round(p * 2**16)
    numbers = torch.empty((count + 3) // 4, dtype=torch.int64, device=x.device).random_(-(2**63), None)
    draws = numbers.view(torch.int16)[:count].view(x.shape)
    return draws.float().ge_(dropped - 2**15).mul_(2**16 / max(2**16 - dropped, 1)).to(x.dtype)
