"""A quantized tensor gives back its values, its stored codes and its bytes."""

import pytest
import torch

from nibble.kernels.nibbles import pack_pairs, unpack_pairs
from nibble.quant.numerics import code_bounds, quantize_weight
from nibble.quant.spec import Range, WeightGranularity, WeightSpec
from nibble.quant.tensor import QuantizedTensor, in_slices

SPECS = {
    "symmetric": WeightSpec(4),
    "asymmetric": WeightSpec(4, symmetric=False),
    "asymmetric groups": WeightSpec(3, group_size=6, symmetric=False),
    "asymmetric, one scale": WeightSpec(7, WeightGranularity.per_tensor, symmetric=False),
    "sign": WeightSpec(1),
}


@pytest.fixture(params=SPECS)
def spec(request):
    return SPECS[request.param]


@pytest.fixture
def quantized(spec):
    weight = torch.randn(5, 12, generator=torch.Generator().manual_seed(1)) + 0.7  # off zero: zero points matter
    return quantize_weight(weight, spec, "weight")


def test_values_are_codes_times_scales(quantized):
    expected = in_slices(quantized.codes.double(), quantized.scale) * quantized.scale
    assert torch.equal(quantized.dequantize().double(), expected.view(5, 12))


def test_stored_codes_are_within_the_range_of_their_bits(quantized, spec):
    lowest, highest = code_bounds(spec.bits, spec.range if spec.symmetric else Range.full)
    stored = quantized.stored_codes()
    assert int(stored.min()) >= lowest
    assert int(stored.max()) == highest
    again = QuantizedTensor.from_stored(stored, quantized.scale, quantized.zero)
    assert torch.equal(again.codes, quantized.codes)
    if not spec.symmetric:
        assert not torch.equal(stored, quantized.codes)


def test_bytes_give_the_codes_back(quantized, spec):
    packed = quantized.to_bytes(spec.bits)
    assert packed.numel() == -(-60 * spec.bits // 8)
    like = quantized._replace(codes=torch.empty(5, 12, device="meta"))
    again = QuantizedTensor.from_bytes(packed, like, spec.bits)
    assert torch.equal(again.codes, quantized.codes)


@pytest.mark.parametrize("count", [0, 1, 7, 8])
def test_pairs(count):
    values = torch.arange(2 * count, dtype=torch.uint8).view(2, count) % 16
    packed = pack_pairs(values)
    assert packed.shape == (2, (count + 1) // 2)
    assert torch.equal(unpack_pairs(packed, count), values)
    if count > 1:
        assert int(packed[0, 0]) == int(values[0, 0]) + 16 * int(values[0, 1])
