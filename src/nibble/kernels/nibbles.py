"""Two 4-bit values in a byte: the only place where they are put together and taken apart.

Of two neighbours the first is the low half of the byte. An odd number of values ends with a byte whose high half is 0
and is never read.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

_MIDDLE = 8  # added to a signed code to make it unsigned


def pack_pairs(values: Tensor) -> Tensor:
    """Values 0 ... 15, uint8 (..., K) -> bytes uint8 (..., ceil(K / 2))."""
    even = F.pad(values, (0, values.shape[-1] % 2))
    return even[..., 0::2] | (even[..., 1::2] << 4)


def unpack_pairs(packed: Tensor, count: int) -> Tensor:
    """The inverse: bytes uint8 (..., ceil(K / 2)) -> values uint8 (..., K), with K = `count`."""
    return torch.stack((packed & 15, packed >> 4), -1).flatten(-2)[..., :count]


def pack_rows(codes: Tensor) -> Tensor:
    """Codes -8 ... 7, int8 (N, K) -> uint8 (N, ceil(K / 2)); a code c is stored as c + 8.

    With an even K these are the bytes that a bundle has: `nibble.quant.packing` stores codes the same way.
    """
    return pack_pairs((codes + _MIDDLE).to(torch.uint8))


def unpack_rows(packed: Tensor, terms: int) -> Tensor:
    """The inverse: packed uint8 (N, ceil(K / 2)) -> codes int8 (N, K), with K = `terms`."""
    return unpack_pairs(packed, terms).to(torch.int8) - _MIDDLE
