"""A copy of a model for export, with integer weights."""

import copy

from torch import nn

from nibble.model.padding import MaskedBatchNorm
from nibble.model.transducer import Transducer
from nibble.quant.convert import freeze
from nibble.quant.quantized_type import QUANTIZED_TYPES

LAYERS: tuple[type[nn.Module], ...] = (*QUANTIZED_TYPES, MaskedBatchNorm)


def frozen_copy(model: Transducer) -> Transducer:
    """The model with integer weights, without gradients, on the CPU."""
    frozen = copy.deepcopy(model).cpu().eval().requires_grad_(False)
    freeze(frozen)
    return frozen
