"""The three equations."""

import math

import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from nibble.errors import UserError
from nibble.quant.gradients import straight_through
from nibble.quant.numerics import (
    absmax_scale,
    code_bounds,
    quantize,
    quantize_activation,
    quantize_weight,
)
from nibble.quant.spec import ActivationGranularity, ActivationSpec, Range, WeightGranularity, WeightSpec
from nibble.quant.tensor import QuantizedTensor

BITS = st.integers(2, 8)
RANGES = st.sampled_from(list(Range))
MAGNITUDES = st.floats(-1e4, 1e4, width=32, allow_subnormal=False).map(lambda v: 0.0 if abs(v) < 1e-3 else v)
MATRICES = arrays.arrays(np.float32, st.tuples(st.integers(1, 5), st.integers(1, 9)), elements=MAGNITUDES).map(
    torch.from_numpy
)
quickly = settings(deadline=None, max_examples=60)


@pytest.mark.parametrize(
    ("bits", "range_", "lowest", "highest"),
    [
        (8, Range.narrow, -127, 127),
        (4, Range.narrow, -7, 7),
        (2, Range.narrow, -1, 1),
        (4, Range.full, -8, 7),
        (2, Range.full, -2, 1),
        (4, Range.half_step, -7, 7),
    ],
)
def test_code_bounds(bits, range_, lowest, highest):
    assert code_bounds(bits, range_) == (lowest, highest)


def test_by_hand():
    """Steps of 0.5: halves go to the even code, and each range has its own scale."""
    x = torch.tensor([[-3.5, -0.75, -0.25, 0.0, 0.25, 0.75, 1.25, 3.5]])
    scale = absmax_scale(x, (1,), 4, Range.narrow)
    assert scale.tolist() == [[0.5]]
    assert quantize(x, scale, 4, Range.narrow).tolist() == [[-7, -2, 0, 0, 0, 2, 2, 7]]
    assert absmax_scale(torch.tensor([[-4.0, 1.0]]), (1,), 4, Range.full).tolist() == [[0.5]]
    assert absmax_scale(torch.tensor([[-1.0, 3.5]]), (1,), 4, Range.full).tolist() == [[0.5]]
    assert absmax_scale(torch.tensor([[-3.75, 1.0]]), (1,), 4, Range.half_step).tolist() == [[0.5]]


@quickly
@given(x=MATRICES, bits=BITS, range_=RANGES)
def test_activation_error_is_at_most_half_a_step(x, bits, range_):
    codes, scale, _ = quantize_activation(x, (1,), ActivationSpec(bits, range=range_), "layer")
    lowest, highest = code_bounds(bits, range_)
    assert lowest <= codes.min()
    assert codes.max() <= highest
    assert torch.equal(codes, codes.round())
    assert ((x - QuantizedTensor(codes, scale).dequantize()).abs() <= scale * (0.5 + 1e-3)).all()


@quickly
@given(x=MATRICES, bits=BITS)
def test_weight_error_is_at_most_half_a_step(x, bits):
    """The stored scale is a float16, so the largest weight may lie a little beyond the last code."""
    spec = WeightSpec(bits)
    x = torch.where(x.abs().amax(1, keepdim=True) < 1, 0.0, x)  # float16 scales below 2^-14 lose precision
    codes, scale, _ = quantize_weight(x, spec, "layer")
    assert codes.dtype == torch.int8
    assert torch.equal(scale, scale.to(torch.float16).float())
    assert ((x - QuantizedTensor(codes, scale).dequantize()).abs() <= scale * (0.5 + 2**-11)).all()


@quickly
@given(x=MATRICES, bits=BITS, range_=st.sampled_from([Range.narrow, Range.half_step]))
def test_symmetric(x, bits, range_):
    spec = WeightSpec(bits, range=range_)
    codes, scale, _ = quantize_weight(x, spec, "layer")
    mirrored, same_scale, _ = quantize_weight(-x, spec, "layer")
    assert torch.equal(codes, -mirrored)
    assert torch.equal(scale, same_scale)


@quickly
@given(x=MATRICES, bits=BITS)
def test_idempotent(x, bits):
    """Quantized values are quantized to themselves."""
    spec = ActivationSpec(bits)
    codes, scale, _ = quantize_activation(x, (1,), spec, "layer")
    again, _, _ = quantize_activation(QuantizedTensor(codes, scale).dequantize(), (1,), spec, "layer")
    assert torch.equal(codes, again)


@quickly
@given(x=MATRICES, bits=BITS, range_=RANGES)
def test_zero_is_zero(x, bits, range_):
    x[:, 0] = 0
    codes, _, _ = quantize_activation(x, (1,), ActivationSpec(bits, range=range_), "layer")
    assert not codes[:, 0].any()


def test_a_slice_of_zeros_has_scale_one():
    x = torch.tensor([[0.0, 0.0], [1.0, -127.0]])
    codes, scale, _ = quantize_activation(x, (1,), ActivationSpec(8), "layer")
    assert scale.tolist() == [[1.0], [1.0]]
    assert codes.tolist() == [[0.0, 0.0], [1.0, -127.0]]
    codes, scale, _ = quantize_weight(torch.tensor([[0.0, 0.0], [1e-9, 0.0]]), WeightSpec(8), "layer")
    assert scale.tolist() == [[1.0], [1.0]]  # 1e-9 / 127 is zero in float16
    assert not codes.any()


@quickly
@given(x=MATRICES)
def test_a_row_does_not_depend_on_its_neighbours(x):
    codes, scale, _ = quantize_activation(x, (1,), ActivationSpec(8), "layer")
    for row in range(len(x)):
        alone, its_scale, _ = quantize_activation(x[row : row + 1], (1,), ActivationSpec(8), "layer")
        assert torch.equal(alone[0], codes[row])
        assert torch.equal(its_scale[0], scale[row])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_types_and_layouts(dtype):
    x = torch.randn(6, 4, 3, dtype=torch.float32).to(dtype)
    spec = ActivationSpec(8)
    codes, scale, _ = quantize_activation(x, (1, 2), spec, "layer")
    assert scale.shape == (6, 1, 1)
    assert scale.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    strided = x.transpose(1, 2).contiguous().transpose(1, 2)
    assert not strided.is_contiguous()
    assert torch.equal(quantize_activation(strided, (1, 2), spec, "layer")[0], codes)


@pytest.mark.parametrize("shape", [(0, 4), (3, 0), (0, 0)])
def test_empty(shape):
    codes, scale, _ = quantize_activation(torch.zeros(shape), (1,), ActivationSpec(8), "layer")
    assert codes.shape == shape
    assert scale.shape == (shape[0], 1)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_nan_and_infinity_name_the_layer(bad):
    x = torch.ones(3, 4)
    x[1, 2] = bad
    for range_ in Range:
        with pytest.raises(UserError, match=r"encoder\.3: NaN or infinity in the input"):
            quantize_activation(x, (1,), ActivationSpec(8, range=range_), "encoder.3")
        with pytest.raises(UserError, match=r"encoder\.3: NaN or infinity in the weight"):
            quantize_weight(x, WeightSpec(8, range=range_), "encoder.3")


def test_a_weight_too_large_for_a_float16_scale():
    quantize_weight(torch.tensor([[65504.0 * 7]]), WeightSpec(4), "layer")
    with pytest.raises(UserError, match=r"layer: the largest weight is 1e\+06.*overflows float16"):
        quantize_weight(torch.tensor([[1e6]]), WeightSpec(4), "layer")


def test_granularities():
    weight = torch.tensor([[[7.0, 1.0]], [[14.0, 2.0]]])
    per_channel = quantize_weight(weight, WeightSpec(4), "layer")[1]
    per_tensor = quantize_weight(weight, WeightSpec(4, WeightGranularity.per_tensor), "layer")[1]
    assert per_channel.tolist() == [[[1.0]], [[2.0]]]
    assert per_tensor.tolist() == [[[2.0]]]


def test_straight_through_gradient():
    x = torch.tensor([1.0, 2.0], requires_grad=True)
    out = straight_through(x, torch.tensor([5.0, 6.0]))
    assert out.tolist() == [5.0, 6.0]
    (out * torch.tensor([3.0, 4.0])).sum().backward()
    assert isinstance(x.grad, Tensor)
    assert x.grad.tolist() == [3.0, 4.0]


def test_specs_are_plain_values():
    assert ActivationSpec(8) == ActivationSpec(8, ActivationGranularity.per_token, Range.narrow)
