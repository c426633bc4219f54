"""The integer operators against int64 arithmetic."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from nibble.kernels import ops
from nibble.kernels.operators import convolution, matmul

SIZES = st.integers(0, 40)


def codes(*shape: int, seed: int = 0) -> Tensor:
    """Random int8 codes over the whole range, the ends included."""
    return torch.randint(-128, 128, shape, dtype=torch.int8, generator=torch.Generator().manual_seed(seed))


def conv_oracle(x: Tensor, weight: Tensor, stride, padding, dilation, groups) -> Tensor:
    """int64 sums, one filter tap at a time."""
    x = F.pad(x.long(), (padding[1], padding[1], padding[0], padding[0]))
    height, width = convolution.IntConv2d(x, weight, stride, (0, 0), dilation).out_size()
    outs = []
    for part, filters in zip(x.chunk(groups, 1), weight.long().chunk(groups, 0), strict=True):
        out = torch.zeros(x.shape[0], filters.shape[0], height, width, dtype=torch.long)
        for i in range(weight.shape[2]):
            for j in range(weight.shape[3]):
                top, left = i * dilation[0], j * dilation[1]
                rows = slice(top, top + (height - 1) * stride[0] + 1, stride[0])
                columns = slice(left, left + (width - 1) * stride[1] + 1, stride[1])
                tap = part[:, :, rows, columns]
                out += (tap.unsqueeze(1) * filters[None, :, :, i, j, None, None]).sum(2)
        outs.append(out)
    return torch.cat(outs, 1)


@settings(deadline=None, max_examples=40)
@given(rows=SIZES, terms=SIZES, outputs=SIZES)
@example(rows=3, terms=1, outputs=5)
@example(rows=0, terms=4, outputs=5)
@example(rows=3, terms=0, outputs=5)
@example(rows=3, terms=4, outputs=0)
def test_matmul_is_exact(rows, terms, outputs):
    x, weight = codes(rows, terms), codes(outputs, terms, seed=1)
    out = ops.int_matmul(x, weight)
    assert out.dtype == torch.int32
    assert torch.equal(out.long(), x.long() @ weight.long().t())


@pytest.mark.parametrize("value", [-128, 127])
def test_matmul_at_the_extremes(value):
    x = torch.full((33, 4099), value, dtype=torch.int8)
    weight = torch.full((5, 4099), -128, dtype=torch.int8)
    assert torch.equal(ops.int_matmul(x, weight), torch.full((33, 5), value * -128 * 4099, dtype=torch.int32))


@pytest.mark.parametrize(
    "x",
    [codes(24, 7).t(), codes(100).unfold(0, 24, 4), codes(1, 24).expand(7, 24), codes(7, 48)[:, ::2]],
    ids=["transposed", "overlapping", "expanded", "strided"],
)
def test_matmul_takes_any_layout(x):
    weight = codes(24, 5, seed=1).t()
    assert torch.equal(ops.int_matmul(x, weight).long(), x.long() @ weight.long().t())
    assert torch.equal(ops.int_matmul(weight, x).long(), weight.long() @ x.long().t())


CONVOLUTIONS = [
    # channels, outputs, kernel, size, stride, padding, dilation, groups
    pytest.param(1, 6, (3, 3), (11, 9), (2, 2), (0, 0), (1, 1), 1, id="subsampling"),
    pytest.param(5, 4, (3, 2), (8, 9), (1, 2), (1, 1), (2, 1), 1, id="dense, odd"),
    pytest.param(8, 8, (1, 15), (1, 20), (1, 1), (0, 7), (1, 1), 8, id="depthwise"),
    pytest.param(4, 8, (1, 5), (1, 12), (1, 2), (0, 2), (1, 2), 4, id="depthwise, two filters a channel"),
    pytest.param(6, 4, (1, 3), (1, 9), (1, 1), (0, 1), (1, 1), 2, id="grouped"),
    pytest.param(128, 6, (3, 3), (5, 6), (1, 1), (1, 1), (1, 1), 1, id="dense, long sums"),
    pytest.param(256, 4, (1, 9), (1, 12), (1, 1), (0, 4), (1, 1), 2, id="grouped, too long for float32"),
]


@pytest.mark.parametrize(
    ("channels", "outputs", "kernel", "size", "stride", "padding", "dilation", "groups"), CONVOLUTIONS
)
@pytest.mark.parametrize("extreme", [False, True])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_conv_is_exact(channels, outputs, kernel, size, stride, padding, dilation, groups, extreme, layout):
    x = codes(2, channels, *size)
    weight = codes(outputs, channels // groups, *kernel, seed=1)
    if extreme:
        x, weight = torch.full_like(x, -128), torch.full_like(weight, -128)
        x[..., -1] = 127  # an odd term, so that a sum beyond 2^24 would not be a float32
    x = x.contiguous(memory_format=layout)
    out = ops.int_conv2d(x, weight, stride, padding, dilation, groups)
    assert out.dtype == torch.int32
    assert torch.equal(out.long(), conv_oracle(x, weight, stride, padding, dilation, groups))


def test_conv_of_an_empty_batch():
    assert ops.int_conv2d(codes(0, 3, 8, 8), codes(4, 3, 3, 3)).shape == (0, 4, 6, 6)
    assert ops.int_conv2d(codes(0, 4, 1, 8), codes(4, 1, 1, 3), groups=4).shape == (0, 4, 1, 6)


def test_the_bound_for_float32_is_the_last_that_holds():
    """2^10 products of the largest magnitude, and no more, add up to an integer that every float32 step can hold."""
    assert convolution.EXACT_FLOAT32_TERMS * 128 * 128 == 2**24


@pytest.mark.parametrize("most", [2**31 - 1, 400])
@pytest.mark.parametrize(("rows", "terms", "outputs"), [(0, 8, 8), (1, 7, 5), (17, 96, 31), (83, 16, 8), (16, 8, 8)])
def test_the_way_through_cublas_gives_the_same_integers(monkeypatch, most, rows, terms, outputs):
    """Sizes that it refuses are filled up, operands that are too large go in parts."""
    monkeypatch.setattr(matmul, "CUBLAS_BYTES", most)
    x, weight = codes(rows, terms), codes(outputs, terms, seed=1)
    assert torch.equal(matmul.by_cublas(x, weight), ops.int_matmul(x, weight))


def test_what_needs_no_padding_is_not_copied():
    x = codes(32, 16)
    assert matmul.padded(x, (0, 0, 0, 0)) is x


def test_opcheck():
    torch.library.opcheck(torch.ops.nibble.int_matmul.default, (codes(3, 5), codes(7, 5)))
    torch.library.opcheck(torch.ops.nibble.int_matmul.default, (codes(0, 5), codes(7, 5)))
    for parameter in CONVOLUTIONS:
        channels, outputs, kernel, size, stride, padding, dilation, groups = parameter.values
        x, weight = codes(2, channels, *size), codes(outputs, channels // groups, *kernel)
        torch.library.opcheck(torch.ops.nibble.int_conv2d.default, (x, weight, stride, padding, dilation, groups))


@pytest.mark.parametrize(
    ("x", "weight", "message"),
    [
        (torch.zeros(2, 3), codes(4, 3), "torch.float32"),
        (codes(2, 3), codes(4, 5), r"\(2, 3\) and \(4, 5\)"),
        (codes(3), codes(4, 3), "give"),
    ],
)
def test_matmul_says_what_is_wrong(x, weight, message):
    with pytest.raises(RuntimeError, match=message):
        ops.int_matmul(x, weight)


def test_conv_says_what_is_wrong():
    with pytest.raises(RuntimeError, match="2 groups do not fit"):
        ops.int_conv2d(codes(1, 4, 5, 5), codes(4, 4, 3, 3), groups=2)


@pytest.mark.gpu
def test_cuda_gives_the_same_integers():
    for rows, terms, outputs in [(0, 8, 8), (1, 7, 5), (17, 96, 31), (40, 33, 32), (1000, 96, 384)]:
        x, weight = codes(rows, terms), codes(outputs, terms, seed=1)
        assert torch.equal(ops.int_matmul(x.cuda(), weight.cuda()).cpu(), ops.int_matmul(x, weight))
    for parameter in CONVOLUTIONS:
        channels, outputs, kernel, size, stride, padding, dilation, groups = parameter.values
        x, weight = codes(2, channels, *size), codes(outputs, channels // groups, *kernel, seed=1)
        move = (stride, padding, dilation, groups)
        assert torch.equal(ops.int_conv2d(x.cuda(), weight.cuda(), *move).cpu(), ops.int_conv2d(x, weight, *move))
