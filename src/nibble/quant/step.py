"""What a training step is wrapped in, so that a GPU has few launches and is waited for once."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from nibble.parameter_cache import steady_parameters
from nibble.quant.finite import checked_at_end
from nibble.quant.weights_at_once import quantize_at_once


@contextmanager
def quantized_step(network: nn.Module) -> Iterator[None]:
    """Around the forward pass of a step: each weight is quantized once, on a GPU all in one launch and checked last.

    Raises:
        UserError: a weight or an activation had NaN or infinity; the first layer is named.
    """
    with steady_parameters(), checked_at_end():
        quantize_at_once(network)
        yield
