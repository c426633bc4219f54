"""Codes to bytes and back: b bits each, and of N:M pruned codes only the survivors and where they stand.

A code is stored as unsigned: code + 2^(b-1), or (code + 1) / 2 for a sign. Fields of b bits follow each other without
a gap, the first in the lowest bits of the first byte, codes in row-major order; the last byte is filled with zeros.
N:M: the N codes of each group in order, then, from the next byte on, their places in the group, ceil(log2 M) bits each.
At 2:4 and 4 bits that is 3 bits a weight.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from nibble.quant.sparsity import fits
from nibble.quant.spec import Sparsity


def pack(codes: Tensor, bits: int, sparsity: Sparsity | None = None) -> Tensor:
    """codes int8, of any shape -> bytes uint8, one dimension.

    Args:
        codes: within the range of the bits.
        bits: 1 ... 8.
        sparsity: the survivors alone are stored, if the codes have no others and it is shorter.
    """
    if sparsity is None or not _shorter(codes.numel(), bits, sparsity) or not fits(codes, sparsity):
        return _pack_fields(_unsigned(codes.reshape(-1), bits), bits)
    groups = codes.reshape(-1, sparsity.of)
    # Those that aren't zero first, in order; where they are fewer than N, the first zeros join them.
    places = (groups == 0).to(torch.uint8).argsort(dim=1, stable=True)[:, : sparsity.keep].sort(dim=1).values
    survivors = groups.gather(1, places)
    return torch.cat(
        [
            _pack_fields(_unsigned(survivors.reshape(-1), bits), bits),
            _pack_fields(places.reshape(-1).to(torch.uint8), _place_bits(sparsity)),
        ]
    )


def unpack(packed: Tensor, bits: int, shape: torch.Size | tuple[int, ...], sparsity: Sparsity | None = None) -> Tensor:
    """The inverse of `pack`: bytes uint8 -> codes int8 of `shape`.

    Raises:
        ValueError: the number of bytes does not fit the shape, or a place of a survivor cannot be one.
    """
    count = torch.Size(shape).numel()
    if packed.numel() == _bytes(count, bits):
        return _signed(_unpack_fields(packed, bits, count), bits).view(shape)
    if sparsity is not None and _shorter(count, bits, sparsity):
        kept = count // sparsity.of * sparsity.keep
        values = _bytes(kept, bits)
        if packed.numel() == values + _bytes(kept, _place_bits(sparsity)):
            survivors = _signed(_unpack_fields(packed[:values], bits, kept), bits).view(-1, sparsity.keep)
            places = _unpack_fields(packed[values:], _place_bits(sparsity), kept).view(-1, sparsity.keep).long()
            if bool((places >= sparsity.of).any()):
                raise ValueError(f"a place beyond {sparsity.of} weights")
            if bool((places.diff(dim=1) <= 0).any()):
                raise ValueError("places in a group that do not increase")
            groups = survivors.new_zeros((count // sparsity.of, sparsity.of))
            return groups.scatter_(1, places, survivors).view(shape)
    raise ValueError(f"{packed.numel()} bytes cannot hold {tuple(shape)} codes of {bits} bits")


def packed_bytes(count: int, bits: int, sparsity: Sparsity | None = None) -> int:
    """Bytes that `count` codes take once pruned."""
    if sparsity is None or not _shorter(count, bits, sparsity):
        return _bytes(count, bits)
    kept = count // sparsity.of * sparsity.keep
    return _bytes(kept, bits) + _bytes(kept, _place_bits(sparsity))


def _shorter(count: int, bits: int, sparsity: Sparsity) -> bool:
    """Whether survivors and places take fewer bytes than all codes, so that the size tells which of both it is."""
    kept = count // sparsity.of * sparsity.keep
    return _bytes(kept, bits) + _bytes(kept, _place_bits(sparsity)) < _bytes(count, bits)


def _place_bits(sparsity: Sparsity) -> int:
    return (sparsity.of - 1).bit_length()


def _bytes(count: int, bits: int) -> int:
    return -(-count * bits // 8)


def _unsigned(codes: Tensor, bits: int) -> Tensor:
    if bits == 1:
        return (codes > 0).to(torch.uint8)
    return (codes.to(torch.int16) + 2 ** (bits - 1)).to(torch.uint8)


def _signed(fields: Tensor, bits: int) -> Tensor:
    if bits == 1:
        return (fields * 2).to(torch.int8) - 1
    return (fields.to(torch.int16) - 2 ** (bits - 1)).to(torch.int8)


def _pack_fields(fields: Tensor, bits: int) -> Tensor:
    """uint8 values below 2^bits (n,) -> bytes."""
    stream = (fields.unsqueeze(1) >> _places(bits)) & 1
    stream = F.pad(stream.reshape(-1), (0, -fields.numel() * bits % 8)).view(-1, 8)
    return (stream << _places(8)).sum(1, dtype=torch.uint8)


def _unpack_fields(packed: Tensor, bits: int, count: int) -> Tensor:
    """The inverse: the first `count` values."""
    stream = ((packed.unsqueeze(1) >> _places(8)) & 1).reshape(-1)[: count * bits]
    return (stream.view(-1, bits) << _places(bits)).sum(1, dtype=torch.uint8)


def _places(bits: int) -> Tensor:
    return torch.arange(bits, dtype=torch.uint8)
