"""What is written must be numbers: NaN or infinity in a file would only show when it is used."""

from collections.abc import Mapping

import torch
from torch import Tensor


def not_finite(tensors: Mapping[str, Tensor]) -> str | None:
    """The name of the first tensor that has a value which is NaN or infinite; None if all are finite."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            return name
    return None
