"""Codes to bytes and back."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nibble.quant.packing import pack, packed_bytes, unpack
from nibble.quant.sparsity import n_m_mask
from nibble.quant.spec import Sparsity


@settings(deadline=None, max_examples=60)
@given(bits=st.integers(2, 8), shape=st.lists(st.integers(0, 7), min_size=0, max_size=4), seed=st.integers(0, 100))
def test_round_trip(bits, shape, seed):
    draw = torch.Generator().manual_seed(seed)
    codes = torch.randint(-(2 ** (bits - 1)), 2 ** (bits - 1), shape, dtype=torch.int8, generator=draw)
    packed = pack(codes, bits)
    assert packed.dtype == torch.uint8
    assert packed.numel() == -(-codes.numel() * bits // 8)
    assert torch.equal(unpack(packed, bits, codes.shape), codes)


def test_by_hand():
    """Four bits: -8, 7 is 0x0, 0xf, the first in the low half; an odd end is filled with zeros."""
    assert pack(torch.tensor([-8, 7, 0], dtype=torch.int8), 4).tolist() == [0xF0, 0x08]
    assert pack(torch.tensor([-2, -1, 0, 1], dtype=torch.int8), 2).tolist() == [0b11_10_01_00]
    assert pack(torch.tensor([-128, 127], dtype=torch.int8), 8).tolist() == [0, 255]
    assert pack(torch.tensor([-4, 3, -4], dtype=torch.int8), 3).tolist() == [0b00_111_000, 0]
    assert pack(torch.tensor([-1, 1, 1], dtype=torch.int8), 1).tolist() == [0b110]


@settings(deadline=None, max_examples=40)
@given(rows=st.integers(0, 5), seed=st.integers(0, 100))
def test_signs(rows, seed):
    codes = torch.randint(0, 2, (rows, 7), dtype=torch.int8, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    assert torch.equal(unpack(pack(codes, 1), 1, codes.shape), codes)


@settings(deadline=None, max_examples=60)
@given(
    bits=st.integers(2, 8),
    pattern=st.sampled_from([(2, 4), (1, 4), (1, 2), (3, 8), (2, 3)]),
    rows=st.integers(0, 4),
    seed=st.integers(0, 100),
    pruned=st.booleans(),
)
def test_pruned_codes(bits, pattern, rows, seed, pruned):
    """Zeros among the survivors, and codes that were not pruned yet, come back too."""
    sparsity = Sparsity(*pattern)
    draw = torch.Generator().manual_seed(seed)
    highest = 2 ** (bits - 1) - 1
    codes = torch.randint(-highest, highest + 1, (rows, 2, sparsity.of), dtype=torch.int8, generator=draw)
    if pruned:
        codes = codes * n_m_mask(codes.float(), sparsity)
        assert pack(codes, bits, sparsity).numel() == packed_bytes(codes.numel(), bits, sparsity)
    assert torch.equal(unpack(pack(codes, bits, sparsity), bits, codes.shape, sparsity), codes)


def test_two_of_four_in_four_bits_takes_three_bits_a_weight():
    sparsity = Sparsity(2, 4)
    codes = torch.tensor([[0, 7, 0, -7, 1, 0, 0, 0]], dtype=torch.int8)
    packed = pack(codes, 4, sparsity)
    assert packed.numel() * 8 == 3 * codes.numel()
    assert packed.tolist() == [0x1F, 0x89, 0b01_00_11_01]  # 7, -7, 1, 0; places 1, 3 and 0, 1
    assert torch.equal(unpack(packed, 4, codes.shape, sparsity), codes)


def test_places_that_are_none():
    """2:3 of 12 weights in 8 bits: eight codes, then eight places of two bits, of which 3 is none."""
    with pytest.raises(ValueError, match="a place beyond 3 weights"):
        unpack(torch.full((10,), 255, dtype=torch.uint8), 8, (1, 12), Sparsity(2, 3))


def test_two_survivors_in_one_place():
    """2:4 in 4 bits: two codes, then the places 1 and 0 in place of 0 and 1, or 1 twice."""
    for places in (0b0001, 0b0101):
        with pytest.raises(ValueError, match="places in a group that do not increase"):
            unpack(torch.tensor([0x99, 0x99, places], dtype=torch.uint8), 4, (1, 8), Sparsity(2, 4))


def test_a_strided_tensor_is_packed_in_row_major_order():
    codes = torch.arange(-6, 6, dtype=torch.int8).view(3, 4).t()
    assert torch.equal(unpack(pack(codes, 4), 4, (4, 3)), codes)


def test_a_wrong_number_of_bytes():
    with pytest.raises(ValueError, match=r"3 bytes cannot hold \(2, 2\) codes of 4 bits"):
        unpack(torch.zeros(3, dtype=torch.uint8), 4, (2, 2))
