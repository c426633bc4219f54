"""Rows of 4-bit codes as bytes, two codes each.

A code c is stored as c + 8; the first of a row in the low half of the row's first byte, the second in the high half,
and so on. A row of an odd number of codes ends with a byte whose high half is 0 and means nothing. Each row is what
`nibble.quant.packing` makes of it, so the weights of a bundle with an even K are these bytes.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def pack_rows(codes: Tensor) -> Tensor:
    """codes int8 (N, K), each -8 ... 7 -> uint8 (N, ceil(K / 2))."""
    halves = F.pad((codes + 8).to(torch.uint8), (0, codes.shape[1] % 2))
    return halves[:, 0::2] | (halves[:, 1::2] << 4)


def unpack_rows(packed: Tensor, terms: int) -> Tensor:
    """The inverse: packed uint8 (N, ceil(K / 2)) -> codes int8 (N, K), with K = `terms`."""
    halves = torch.stack((packed & 15, packed >> 4), 2).flatten(1)[:, :terms]
    return halves.to(torch.int8) - 8
