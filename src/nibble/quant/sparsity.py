"""N:M pruning: of each M successive weights along K the N largest magnitudes stay (Mishra et al., 2021)."""

import torch
from torch import Tensor

from nibble.quant.spec import Sparsity


def n_m_mask(weight: Tensor, sparsity: Sparsity) -> Tensor:
    """True where a weight (N, ...) stays; K is all but its first dimension. Of equal magnitudes the first stay."""
    groups = weight.abs().reshape(-1, sparsity.of)
    order = groups.argsort(dim=1, descending=True, stable=True)
    return torch.zeros_like(groups, dtype=torch.bool).scatter_(1, order[:, : sparsity.keep], True).view(weight.shape)


def fits(codes: Tensor, sparsity: Sparsity) -> bool:
    """Whether at most N in each M successive codes are not zero."""
    return bool(((codes.reshape(-1, sparsity.of) != 0).sum(1) <= sparsity.keep).all())
