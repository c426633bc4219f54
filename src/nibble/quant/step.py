"""The context of a training step, in which a GPU gets few launches and the CPU waits for it only once."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from nibble.parameter_cache import constant_parameters
from nibble.quant.finite import checked_at_end
from nibble.quant.weights_at_once import quantize_at_once


@contextmanager
def quantized_step(network: nn.Module) -> Iterator[None]:
    """Around the forward pass of a step: each weight is quantized once; on a GPU all in one launch, checked at the end.

    Raises:
        UserError: a weight or an activation had NaN or infinity; the first layer is named.
    """
    with constant_parameters(), checked_at_end():
        quantize_at_once(network)
        yield
