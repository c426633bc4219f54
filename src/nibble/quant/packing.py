"""Codes to bytes and back. Two bits: four codes a byte; three or four bits: two a byte; more: one a byte.

A code is stored as code + 2^(b-1), unsigned, the first of a byte in its lowest bits. Codes are taken in row-major
order, and the last byte is filled with zeros.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def pack(codes: Tensor, bits: int) -> Tensor:
    """codes int8, of any shape -> bytes uint8, one dimension."""
    width = _width(bits)
    per_byte = 8 // width
    unsigned = (codes.reshape(-1).to(torch.int16) + 2 ** (width - 1)).to(torch.uint8)
    fields = F.pad(unsigned, (0, -unsigned.numel() % per_byte)).view(-1, per_byte)
    packed = fields[:, 0].clone()
    for place in range(1, per_byte):
        packed |= fields[:, place] << (place * width)
    return packed


def unpack(packed: Tensor, bits: int, shape: torch.Size | tuple[int, ...]) -> Tensor:
    """The inverse of `pack`: bytes uint8 -> codes int8 of `shape`.

    Raises:
        ValueError: the number of bytes does not fit the shape.
    """
    width = _width(bits)
    per_byte = 8 // width
    count = torch.Size(shape).numel()
    if packed.numel() != -(-count // per_byte):
        raise ValueError(f"{packed.numel()} bytes cannot hold {tuple(shape)} codes of {bits} bits")
    fields = torch.stack([(packed >> (place * width)) & (2**width - 1) for place in range(per_byte)], 1)
    return (fields.reshape(-1)[:count].to(torch.int16) - 2 ** (width - 1)).to(torch.int8).view(shape)


def _width(bits: int) -> int:
    """The bits that a code takes in a byte."""
    if bits == 2:
        return 2
    return 4 if bits <= 4 else 8
