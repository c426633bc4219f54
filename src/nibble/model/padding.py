"""Keeps padding out of the result: a mask of real frames, and batch normalisation over real frames only."""

import torch
from torch import Tensor, nn

from nibble.distributed import total


def valid_frames(lengths: Tensor, frames: int) -> Tensor:
    """True for a real frame, False for padding: lengths (B,) -> (B, T, 1) with T = `frames`.

    `x * valid_frames(...)` makes padding zero and keeps the type of x, half precision included. `x.mul_(...)` does so
    several times faster on CPU, where new memory costs more than the product.
    """
    positions = torch.arange(frames, device=lengths.device)
    return (positions < lengths.unsqueeze(1)).unsqueeze(2)


class MaskedBatchNorm(nn.BatchNorm1d):
    """Batch normalisation (Ioffe and Szegedy, 2015) of (B, T, D) whose statistics leave padding out.

    Processes that train together share the statistics of all their batches, so their buffers stay equal.
    Parameters and buffers are those of `nn.BatchNorm1d`. Statistics are float32 whatever the autocast.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor
    momentum: float

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:  # type: ignore[override]
        """x (B, T, D), valid (B, T, 1) -> (B, T, D). Padded frames come out with any finite value."""
        if not self.training:
            scale = torch.rsqrt(self.running_var + self.eps)
            if self.affine:
                scale = scale * self.weight
                return torch.addcmul(self.bias - self.running_mean * scale, x, scale)
            return (x - self.running_mean) * scale
        with torch.autocast(x.device.type, enabled=False):
            rows = x.float().reshape(-1, self.num_features)
            weights = valid.reshape(1, -1).float()
            count = total(weights.sum())
            # (1, D): as a product it is several times faster than masking and summing
            mean = total(weights @ rows) / count
            centred = rows - mean
            variance = total(weights @ centred.square()) / count
            self._track(mean.detach()[0], variance.detach()[0], count)
            scale = torch.rsqrt(variance + self.eps)
            y = torch.addcmul(self.bias, centred, scale * self.weight) if self.affine else centred * scale
        return y.view(x.shape)

    @torch.no_grad()
    def _track(self, mean: Tensor, variance: Tensor, count: Tensor) -> None:
        """Moves the running statistics as `nn.BatchNorm1d` does, with the unbiased variance."""
        self.num_batches_tracked += 1
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance * count / (count - 1).clamp(min=1), self.momentum)
