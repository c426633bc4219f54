"""Codes to bytes and back: b bits each, and of N:M pruned codes only the ones that were kept and their places.

A code is stored as an unsigned field: code + 2^(b-1), or (code + 1) / 2 for 1 bit. Fields of b bits follow each other
without a gap, the first in the lowest bits of the first byte, codes in row-major order. The last byte is filled with
zeros.

N:M pruned codes: the N kept codes of each group in order; then, from the next byte on, their places in the group,
ceil(log2 M) bits each. At 2:4 and 4 bits that is 3 bits a weight.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from nibble.kernels.nibbles import pack_pairs, unpack_pairs
from nibble.quant.sparsity import fits
from nibble.quant.spec import Sparsity


def pack(codes: Tensor, bits: int, sparsity: Sparsity | None = None) -> Tensor:
    """Codes int8 of any shape -> bytes uint8, one dimension.

    Args:
        codes: within the range of the bits.
        bits: 1 ... 8.
        sparsity: only the kept codes are stored, if all others are zero and it is shorter.
    """
    if sparsity is None or not _shorter(codes.numel(), bits, sparsity) or not fits(codes, sparsity):
        return _pack_fields(_unsigned(codes.reshape(-1), bits), bits)
    groups = codes.reshape(-1, sparsity.of)
    # The codes that aren't zero come first, in order. Where there are fewer than N, the first zeros fill up.
    places = (groups == 0).to(torch.uint8).argsort(dim=1, stable=True)[:, : sparsity.keep].sort(dim=1).values
    kept = groups.gather(1, places)
    return torch.cat(
        [
            _pack_fields(_unsigned(kept.reshape(-1), bits), bits),
            _pack_fields(places.reshape(-1).to(torch.uint8), _place_bits(sparsity)),
        ]
    )


def unpack(packed: Tensor, bits: int, shape: torch.Size | tuple[int, ...], sparsity: Sparsity | None = None) -> Tensor:
    """The inverse of `pack`: bytes uint8 -> codes int8 of `shape`.

    Raises:
        ValueError: the number of bytes does not fit the shape, or the place of a kept code is impossible.
    """
    count = torch.Size(shape).numel()
    if packed.numel() == _size_bytes(count, bits):
        return _signed(_unpack_fields(packed, bits, count), bits).view(shape)
    if sparsity is not None and _shorter(count, bits, sparsity):
        kept = count // sparsity.of * sparsity.keep
        values_bytes = _size_bytes(kept, bits)
        if packed.numel() == values_bytes + _size_bytes(kept, _place_bits(sparsity)):
            values = _signed(_unpack_fields(packed[:values_bytes], bits, kept), bits).view(-1, sparsity.keep)
            places = _unpack_fields(packed[values_bytes:], _place_bits(sparsity), kept).view(-1, sparsity.keep).long()
            if bool((places >= sparsity.of).any()):
                raise ValueError(f"a place beyond {sparsity.of} weights")
            if bool((places.diff(dim=1) <= 0).any()):
                raise ValueError("places in a group that do not increase")
            groups = values.new_zeros((count // sparsity.of, sparsity.of))
            return groups.scatter_(1, places, values).view(shape)
    raise ValueError(f"{packed.numel()} bytes cannot hold {tuple(shape)} codes of {bits} bits")


def packed_bytes(count: int, bits: int, sparsity: Sparsity | None = None) -> int:
    """The number of bytes that `count` codes take, once they are pruned."""
    if sparsity is None or not _shorter(count, bits, sparsity):
        return _size_bytes(count, bits)
    return _pruned_size_bytes(count, bits, sparsity)


def _shorter(count: int, bits: int, sparsity: Sparsity) -> bool:
    """Whether kept codes and places take fewer bytes than all codes. Then the size tells which of both is stored."""
    return _pruned_size_bytes(count, bits, sparsity) < _size_bytes(count, bits)


def _pruned_size_bytes(count: int, bits: int, sparsity: Sparsity) -> int:
    kept = count // sparsity.of * sparsity.keep
    return _size_bytes(kept, bits) + _size_bytes(kept, _place_bits(sparsity))


def _place_bits(sparsity: Sparsity) -> int:
    return (sparsity.of - 1).bit_length()


def _size_bytes(count: int, bits: int) -> int:
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
    if bits == 4:
        return pack_pairs(fields)
    stream = (fields.unsqueeze(1) >> _places(bits)) & 1
    stream = F.pad(stream.reshape(-1), (0, -fields.numel() * bits % 8)).view(-1, 8)
    return (stream << _places(8)).sum(1, dtype=torch.uint8)


def _unpack_fields(packed: Tensor, bits: int, count: int) -> Tensor:
    """The inverse: the first `count` values."""
    if bits == 4:
        return unpack_pairs(packed, count)
    stream = ((packed.unsqueeze(1) >> _places(8)) & 1).reshape(-1)[: count * bits]
    return (stream.view(-1, bits) << _places(bits)).sum(1, dtype=torch.uint8)


def _places(bits: int) -> Tensor:
    return torch.arange(bits, dtype=torch.uint8)
