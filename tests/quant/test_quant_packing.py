"""Codes to bytes and back."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nibble.quant.packing import pack, unpack


@settings(deadline=None, max_examples=60)
@given(bits=st.integers(2, 8), shape=st.lists(st.integers(0, 7), min_size=0, max_size=4), seed=st.integers(0, 100))
def test_round_trip(bits, shape, seed):
    draw = torch.Generator().manual_seed(seed)
    codes = torch.randint(-(2 ** (bits - 1)), 2 ** (bits - 1), shape, dtype=torch.int8, generator=draw)
    packed = pack(codes, bits)
    assert packed.dtype == torch.uint8
    assert packed.numel() == -(-codes.numel() // {2: 4, 3: 2, 4: 2}.get(bits, 1))
    assert torch.equal(unpack(packed, bits, codes.shape), codes)


def test_by_hand():
    """Four bits: -8, 7 is 0x0, 0xf, the first in the low half; an odd end is filled with zeros."""
    assert pack(torch.tensor([-8, 7, 0], dtype=torch.int8), 4).tolist() == [0xF0, 0x08]
    assert pack(torch.tensor([-2, -1, 0, 1], dtype=torch.int8), 2).tolist() == [0b11_10_01_00]
    assert pack(torch.tensor([-128, 127], dtype=torch.int8), 8).tolist() == [0, 255]


def test_a_strided_tensor_is_packed_in_row_major_order():
    codes = torch.arange(-6, 6, dtype=torch.int8).view(3, 4).t()
    assert torch.equal(unpack(pack(codes, 4), 4, (4, 3)), codes)


def test_a_wrong_number_of_bytes():
    with pytest.raises(ValueError, match=r"3 bytes cannot hold \(2, 2\) codes of 4 bits"):
        unpack(torch.zeros(3, dtype=torch.uint8), 4, (2, 2))
