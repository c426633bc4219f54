"""Convolutions of codes and operators with a float step: each path of the CPU kernels, and the reference."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from nibble.kernels import ops
from nibble.kernels.cpu import library
from nibble.kernels.nibbles import pack_rows
from nibble.kernels.operators.attention import RelativeAttention

PATHS = library.paths()
every_path = pytest.mark.parametrize("path", PATHS or [pytest.param("none", marks=pytest.mark.skip("no CPU kernels"))])
SMALL = st.integers(1, 3)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def codes(*shape: int, seed: int = 0) -> Tensor:
    return torch.randint(-128, 128, shape, dtype=torch.int8, generator=torch.Generator().manual_seed(seed))


# ---- convolutions ----


@every_path
@settings(deadline=None, max_examples=120)
@given(
    batch=SMALL,
    groups=st.sampled_from([1, 2, 3]),
    of_group=st.tuples(st.integers(1, 9), st.integers(1, 20)),
    depthwise=st.booleans(),
    size=st.tuples(st.integers(4, 14), st.integers(5, 40)),
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 5)),
    move=st.tuples(SMALL, SMALL, st.integers(0, 3), st.integers(0, 3), st.just(1), st.integers(1, 2)),
    bias=st.booleans(),
    layout=st.sampled_from([torch.contiguous_format, torch.channels_last]),
)
def test_convolutions_are_those_of_the_reference(
    path, batch, groups, of_group, depthwise, size, kernel, move, bias, layout
):
    channels, outputs = (groups * count for count in of_group)
    if depthwise:
        channels = outputs = groups = outputs
    stride, padding, dilation = move[:2], move[2:4], move[4:]
    if size[1] + 2 * padding[1] < dilation[1] * (kernel[1] - 1) + 1:
        padding = (padding[0], 3)
    x = codes(batch, channels, *size).contiguous(memory_format=layout)
    weight = codes(outputs, channels // groups, *kernel, seed=1).contiguous(memory_format=layout)
    shift = draw(outputs, seed=3) if bias else None
    inputs = x, draw(batch), weight, draw(outputs, seed=2), shift, stride, padding, dilation, groups
    expected = ops.conv2d_w8a8.reference(*inputs)
    torch.full((expected.numel() + 1,), math.nan)  # memory for the result, in which what is not written shows
    with library.forced(path):
        found = ops.conv2d_w8a8(*inputs)
    assert torch.equal(found, expected)
    assert found.is_contiguous(memory_format=torch.channels_last)


@every_path
def test_convolutions_at_the_extremes(path):
    """Sums beyond what a float32 holds, and as many taps a channel as it does hold."""
    for shape, groups in (((2, 300, 3, 3), 1), ((5, 1, 32, 32), 5), ((5, 1, 33, 32), 5)):
        x = torch.full((1, 300 if groups == 1 else 5, 34, 33), -128, dtype=torch.int8)
        x[..., -1] = 127
        inputs = x, torch.ones(1), torch.full(shape, -128, dtype=torch.int8), torch.ones(shape[0]), None
        move = (1, 1), (0, 0), (1, 1), groups
        with library.forced(path):
            assert torch.equal(ops.conv2d_w8a8(*inputs, *move), ops.conv2d_w8a8.reference(*inputs, *move))


@every_path
@settings(deadline=None, max_examples=40)
@given(batch=SMALL, channels=SMALL, outputs=st.integers(1, 40), size=st.tuples(st.integers(3, 40), st.integers(3, 40)))
@example(batch=2, channels=1, outputs=33, size=(80, 40))
def test_codes_after_relu_are_those_of_the_reference(path, batch, channels, outputs, size):
    heights = torch.randint(0, (size[0] - 1) // 2 + 1, (batch,), generator=torch.Generator().manual_seed(size[1]))
    inputs = codes(batch, channels, *size), draw(batch).abs(), codes(outputs, channels, 3, 3, seed=1)
    inputs = *inputs, draw(outputs).abs(), draw(outputs, seed=1), (2, 2), heights
    expected = ops.conv2d_relu_quantize.reference(*inputs)
    with library.forced(path):
        found = ops.conv2d_relu_quantize(*inputs)
    assert all(map(torch.equal, found, expected))
    for utterance, height in enumerate(heights):
        assert (found[0][utterance, :, height:] == 0).all()


@every_path
@pytest.mark.parametrize("bad", [math.nan, -math.nan, math.inf])
def test_a_bad_convolution_has_a_bad_scale(path, bad):
    bias = draw(20)
    bias[7] = bad
    inputs = codes(2, 1, 9, 9), torch.ones(2), codes(20, 1, 3, 3), torch.ones(20), bias, (2, 2)
    with library.forced(path):
        _, scale = ops.conv2d_relu_quantize(*inputs, torch.tensor([4, 0]))
    assert scale.isfinite().tolist() == [False, True]  # the second is padding throughout


@every_path
def test_threads_share_a_convolution(path):
    torch.set_num_threads(2)
    dense = codes(2, 3, 100, 40), draw(2), codes(70, 3, 3, 3), draw(70), draw(70)
    by_channels = codes(2, 70, 1, 300), draw(2), codes(70, 1, 1, 31), draw(70), draw(70)
    with library.forced(path):
        for inputs, move in ((dense, ((2, 2), (1, 1), (1, 1), 1)), (by_channels, ((1, 1), (0, 15), (1, 1), 70))):
            assert torch.equal(ops.conv2d_w8a8(*inputs, *move), ops.conv2d_w8a8.reference(*inputs, *move))
        inputs = *dense, (2, 2), torch.tensor([49, 20])
        assert all(map(torch.equal, ops.conv2d_relu_quantize(*inputs), ops.conv2d_relu_quantize.reference(*inputs)))


# ---- rows ----


@every_path
@settings(deadline=None, max_examples=40)
@given(rows=st.integers(1, 20), terms=st.integers(1, 300), seed=st.integers(0, 100))
def test_rows_after_a_float_step(path, rows, terms, seed):
    """As of the float step in torch, but for what rounds otherwise: a code may be off by one."""
    x, weight, bias = draw(rows, terms, seed=seed) * 5, draw(terms, seed=1), draw(terms, seed=2)
    with library.forced(path):
        pairs = [
            (ops.silu_quantize_rows(x), F.silu(x)),
            (ops.norm_quantize_rows(x, weight, bias, 1e-3), F.layer_norm(x, (terms,), weight, bias, 1e-3)),
        ]
    for (found, scale), values in pairs:
        expected, expected_scale = ops.quantize_rows.reference(values)
        torch.testing.assert_close(scale, expected_scale, rtol=1e-5, atol=1e-7)
        assert (found.int() - expected.int()).abs().max() <= 1
        assert ((found * scale - values).abs() <= 0.51 * scale).all()


def test_rows_after_a_float_step_in_reference():
    x, weight, bias = draw(5, 67), draw(67), draw(67, seed=1)
    for found, made in (
        (ops.silu_quantize_rows.reference(x), F.silu(x)),
        (ops.norm_quantize_rows.reference(x, weight, bias, 1e-3), F.layer_norm(x, (67,), weight, bias, 1e-3)),
        (ops.silu_quantize_rows.reference(x.half()), F.silu(x.half().float())),
    ):
        assert all(map(torch.equal, found, ops.quantize_rows.reference(made)))


def test_rows_of_sixteen_bits_and_of_none():
    x, weight, bias = draw(2, 3, 40).half(), draw(40), draw(40, seed=1)
    for operator in (ops.silu_quantize_rows, lambda x: ops.norm_quantize_rows(x, weight, bias, 1e-5)):
        assert all(map(torch.equal, operator(x), operator(x.float())))
        found, scale = operator(x[:0])
        assert (found.shape, scale.shape) == ((0, 3, 40), (0, 3, 1))


@every_path
def test_silu_at_the_ends(path):
    x = torch.tensor([[-1e30, -100.0, -88.0, -20.0, 0.0, 20.0, 88.0, 100.0]])
    with library.forced(path):
        found, scale = ops.silu_quantize_rows(x)
    assert (found * scale).tolist()[0][:5] == [0.0] * 5
    assert found.tolist()[0][-1] == 127
    torch.testing.assert_close(scale, torch.tensor([[100.0 / 127]]))


@every_path
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_bad_row_stays_bad_after_a_float_step(path, bad):
    x = draw(2, 37)
    x[1, 20] = bad
    with library.forced(path):
        scales = ops.silu_quantize_rows(x)[1], ops.norm_quantize_rows(x, torch.ones(37), torch.zeros(37), 1e-5)[1]
    for scale in scales:
        assert scale.isfinite().flatten().tolist() == [True, False]


# ---- weights alone ----


@every_path
@settings(deadline=None, max_examples=60)
@given(
    rows=st.integers(0, 20),
    terms=st.integers(0, 300),
    outputs=st.integers(0, 40),
    dtype=st.sampled_from([torch.float32, torch.float16, torch.bfloat16]),
    bias=st.booleans(),
)
def test_weights_of_four_bits_alone(path, rows, terms, outputs, dtype, bias):
    x, scale = draw(rows, terms).to(dtype), draw(outputs, seed=1)
    packed = pack_rows(torch.randint(-8, 8, (outputs, terms), dtype=torch.int8))
    if terms % 2:
        packed[:, -1] |= 0xA0  # the last half byte of an odd row means nothing
    shift = draw(outputs, seed=2) if bias else None
    torch.full((rows * outputs + 1,), math.nan)
    with library.forced(path):
        found = ops.linear_w4a16(x, packed, scale, shift)
    expected = ops.linear_w4a16.reference(x, packed, scale, shift)
    assert found.dtype == dtype
    tolerance = 1e-4 if dtype == torch.float32 else 1e-2
    torch.testing.assert_close(found, expected, atol=tolerance * (1 + terms**0.5), rtol=tolerance)


# ---- attention ----


def attention_inputs(batch: int, queries: int, left: int, heads: int, width: int) -> tuple[Tensor | int, ...]:
    keys, depth = left + queries, heads * width
    visible = torch.rand(batch, keys, generator=torch.Generator().manual_seed(keys)) < 0.8
    visible[:, left] = True
    shapes = (batch, queries, depth), (batch, keys, depth), (batch, keys, depth), (keys + queries, depth)
    return *(draw(*shape, seed=seed) for seed, shape in enumerate((*shapes, (depth,), (depth,)))), visible, heads


def by_definition(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    positions: Tensor,
    content_bias: Tensor,
    position_bias: Tensor,
    visible: Tensor,
    heads: int,
) -> Tensor:
    """Each pair of frames by itself, in float64."""
    out = torch.zeros(query.shape, dtype=torch.float64)
    width, left = query.shape[2] // heads, key.shape[1] - query.shape[1]
    for utterance in range(len(query)):
        for head in range(heads):
            part = slice(head * width, (head + 1) * width)
            for i, asked in enumerate(query[utterance, :, part].double()):
                seen = visible[utterance].nonzero().flatten().tolist()
                scores = []
                for j in seen:
                    distance = left + i - j
                    position = positions[key.shape[1] - 1 - distance, part].double()
                    by_content = (asked + content_bias[part]) @ key[utterance, j, part].double()
                    scores.append((by_content + (asked + position_bias[part]) @ position) / math.sqrt(width))
                weights = torch.stack(scores).softmax(0)
                out[utterance, i, part] = weights @ value[utterance, seen, part].double()
    return out


OF_TORCH = {
    "reference": ops.relative_attention.reference,
    "cuda": lambda *inputs: RelativeAttention(*inputs).by_scaled_dot_product(),
}


@pytest.mark.parametrize("path", [*OF_TORCH, *PATHS])
@pytest.mark.parametrize(
    ("batch", "queries", "left", "heads", "width"),
    [(1, 9, 0, 2, 8), (2, 7, 12, 3, 5), (3, 1, 0, 1, 4), (1, 13, 1, 2, 16), (2, 4, 37, 2, 20)],
)
def test_attention_is_its_definition(path, batch, queries, left, heads, width):
    inputs = attention_inputs(batch, queries, left, heads, width)
    if path in OF_TORCH:
        found = OF_TORCH[path](*inputs)
    else:
        with library.forced(path):
            found = ops.relative_attention(*inputs)
    torch.testing.assert_close(found.double(), by_definition(*inputs), atol=1e-5, rtol=1e-5)


@every_path
@settings(deadline=None, max_examples=40)
@given(
    batch=SMALL, queries=st.integers(1, 70), left=st.integers(0, 70), heads=SMALL, width=st.sampled_from([1, 8, 36, 64])
)
@example(batch=1, queries=249, left=0, heads=2, width=64)
def test_attention_is_that_of_the_reference(path, batch, queries, left, heads, width):
    inputs = attention_inputs(batch, queries, left, heads, width)
    torch.full((batch * queries * heads * width + 1,), math.nan)
    with library.forced(path):
        found = ops.relative_attention(*inputs)
    torch.testing.assert_close(found, ops.relative_attention.reference(*inputs), atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("path", [*OF_TORCH, *PATHS])
def test_hidden_keys_have_no_part(path):
    query, key, value, positions, content_bias, position_bias, visible, heads = attention_inputs(2, 20, 3, 2, 8)
    of = OF_TORCH.get(path, ops.relative_attention)
    visible[1] = False
    other_key, other_value = (torch.where(visible.unsqueeze(2), x, 1e4) for x in (key, value))
    with torch.no_grad() if path in OF_TORCH else library.forced(path):
        found, other = (
            of(query, k, v, positions, content_bias, position_bias, visible, heads)
            for k, v in ((key, value), (other_key, other_value))
        )
    assert torch.equal(found[0], other[0])
    assert found[1].isnan().all()  # it sees nothing


def test_attention_on_two_threads():
    inputs = attention_inputs(2, 30, 0, 4, 16)
    expected = ops.relative_attention(*inputs)
    torch.set_num_threads(2)
    assert torch.equal(ops.relative_attention(*inputs), expected)


# ---- the contract with torch ----

CONVOLVED = codes(2, 4, 5, 9), draw(2), codes(6, 4, 3, 3), draw(6)
CALLS = {
    "conv2d_w8a8": (*CONVOLVED, draw(6).requires_grad_(), (2, 1), (1, 0), (1, 2), 1),
    "conv2d_relu_quantize": (*CONVOLVED, None, (2, 2), torch.tensor([2, 1])),
    "relative_attention": attention_inputs(2, 5, 3, 2, 4),
}


@pytest.mark.parametrize("name", CALLS)
def test_opcheck(name):
    torch.library.opcheck(getattr(torch.ops.nibble, name).default, CALLS[name])


def test_the_gradient_of_a_bias():
    bias = draw(6).requires_grad_()
    out = ops.conv2d_w8a8(*CONVOLVED, bias, (2, 1), (1, 0), (1, 2), 1)
    out.backward(draw(*out.shape))
    torch.testing.assert_close(bias.grad, draw(*out.shape).sum((0, 2, 3)))


def changed(name: str, place: int, value: object) -> tuple[object, ...]:
    return *CALLS[name][:place], value, *CALLS[name][place + 1 :]


@pytest.mark.parametrize(
    ("name", "place", "value", "message"),
    [
        ("conv2d_w8a8", 0, draw(2, 4, 5, 9), "types torch.float32 and torch.int8; both must be torch.int8"),
        ("conv2d_w8a8", 2, codes(6, 3, 3, 3), r"sizes \(2, 4, 5, 9\) and \(6, 3, 3, 3\) with 1 groups do not fit"),
        ("conv2d_w8a8", 1, draw(3), r"scale is torch.float32 \(3,\); give torch.float32 \(2,\)"),
        ("conv2d_w8a8", 4, draw(5), r"bias is torch.float32 \(5,\); give torch.float32 \(6,\)"),
        ("conv2d_relu_quantize", 6, torch.tensor([2]), r"heights is torch.int64 \(1,\); give torch.int64 \(2,\)"),
        ("relative_attention", 3, draw(12, 8), r"positions is torch.float32 \(12, 8\); give torch.float32 \(13, 8\)"),
        ("relative_attention", 1, draw(8, 8), r"sizes \(2, 5, 8\) and \(8, 8\); give \(B, T, D\) and \(B, S, D\)"),
        ("relative_attention", 6, draw(2, 8), r"visible is torch.float32 \(2, 8\); give torch.bool \(2, 8\)"),
        ("relative_attention", 7, 3, "3 heads do not divide D = 8"),
    ],
)
def test_what_is_wrong_is_said_alike(name, place, value, message):
    inputs = changed(name, place, value)
    for operator in (getattr(ops, name), ops.OPERATORS[name].reference):
        with pytest.raises(RuntimeError, match=f"{name}: {message}"):
            operator(*inputs)


@pytest.mark.gpu
@pytest.mark.parametrize("name", CALLS)
def test_cuda_gives_the_same(name):
    inputs = CALLS[name]
    on_gpu = [each.cuda() if isinstance(each, Tensor) else each for each in inputs]
    found, expected = getattr(ops, name)(*on_gpu), getattr(ops, name)(*inputs)
    for one, other in zip(*((x,) if isinstance(x, Tensor) else x for x in (found, expected)), strict=True):
        torch.testing.assert_close(one.cpu(), other, atol=0 if one.dtype == torch.int8 else 1e-5, rtol=1e-5)
