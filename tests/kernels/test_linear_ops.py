"""quantize_rows and the linear operators: their integers against int64 arithmetic, and the contract with torch."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from nibble.kernels import ops
from nibble.kernels.nibbles import pack_rows, unpack_rows
from nibble.quant.numerics import quantize_activation
from nibble.quant.packing import pack
from nibble.quant.spec import ActivationSpec

SIZES = st.integers(0, 70)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def codes(*shape: int, bits: int = 8, seed: int = 0) -> Tensor:
    """Random codes over the whole range of the bits, the ends included."""
    half = 2 ** (bits - 1)
    return torch.randint(-half, half, shape, dtype=torch.int8, generator=torch.Generator().manual_seed(seed))


def unit(rows: int, outputs: int) -> tuple[Tensor, Tensor]:
    """Scales of 1: what comes out are the int32 sums in float32, exact up to 2^24."""
    return torch.ones(rows, 1), torch.ones(outputs)


@settings(deadline=None, max_examples=40)
@given(rows=SIZES, terms=SIZES, seed=st.integers(0, 100))
@example(rows=17, terms=513, seed=0)
def test_rows_are_quantized_as_an_activation_is(rows, terms, seed):
    x = draw(rows, terms, seed=seed) * 10 ** draw(rows, 1, seed=seed + 1)
    x[::3] = 0
    found, scale = ops.quantize_rows(x)
    expected, expected_scale, _ = quantize_activation(x, (1,), ActivationSpec(8), "layer")
    assert (found.dtype, scale.dtype) == (torch.int8, torch.float32)
    assert torch.equal(found, expected.to(torch.int8))
    assert torch.equal(scale, expected_scale)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_rows_of_sixteen_bits_are_quantized_in_float32(dtype):
    x = draw(5, 3, 67).to(dtype)
    found, scale = ops.quantize_rows(x)
    expected = ops.quantize_rows(x.float())
    assert torch.equal(found, expected[0])
    assert torch.equal(scale, expected[1])


def test_halves_go_to_the_even_code():
    x = torch.tensor([[-127.0, -2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 126.5]])
    found, scale = ops.quantize_rows(x)
    assert scale.tolist() == [[1.0]]
    assert found.tolist() == [[-127, -2, -2, 0, 0, 2, 2, 126]]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("place", [0, 20, 66])
def test_a_bad_row_has_a_bad_scale_and_harms_no_other(bad, place):
    x = draw(3, 67)
    good_codes, good_scale = ops.quantize_rows(x)
    x[1, place] = bad
    found, scale = ops.quantize_rows(x)
    assert scale.isfinite().flatten().tolist() == [True, False, True]
    assert torch.equal(found[::2], good_codes[::2])
    assert torch.equal(scale[::2], good_scale[::2])


@settings(deadline=None, max_examples=40)
@given(rows=SIZES, terms=SIZES, outputs=SIZES)
@example(rows=1, terms=129, outputs=33)
@example(rows=17, terms=1, outputs=5)
@example(rows=1000, terms=131, outputs=19)
def test_sums_are_exact(rows, terms, outputs):
    x = codes(rows, terms)
    for bits in (4, 8):
        weight = codes(outputs, terms, bits=bits, seed=1)
        expected = x.long() @ weight.long().t()
        scales = unit(rows, outputs)
        assert torch.equal(ops.linear_w8a8(x, scales[0], weight, scales[1], None).long(), expected)
        if bits == 4:
            assert torch.equal(ops.linear_w4a8(x, scales[0], pack_rows(weight), scales[1], None).long(), expected)


@pytest.mark.parametrize("lowest", [True, False])
def test_sums_at_the_extremes(lowest):
    """4096 products of the largest magnitude are 2^26 or 2^22."""
    x = torch.full((17, 4096), -128 if lowest else 127, dtype=torch.int8)
    for bits in (4, 8):
        weight = torch.full((5, 4096), -(2 ** (bits - 1)), dtype=torch.int8)
        expected = (x.long() @ weight.long().t()).float()
        scales = unit(17, 5)
        assert torch.equal(ops.linear_w8a8(x, scales[0], weight, scales[1], None), expected)
        if bits == 4:
            assert torch.equal(ops.linear_w4a8(x, scales[0], pack_rows(weight), scales[1], None), expected)


def test_floats_follow_in_one_order():
    x, weight, scale, weight_scale, bias = codes(9, 40), codes(7, 40, bits=4), draw(9, 1), draw(7), draw(7)
    sums = (x.long() @ weight.long().t()).float()
    expected = sums * scale * weight_scale + bias
    assert torch.equal(ops.linear_w8a8(x, scale, weight, weight_scale, bias), expected)
    assert torch.equal(ops.linear_w4a8(x, scale, pack_rows(weight), weight_scale, bias), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_result_of_sixteen_bits_is_rounded_once(dtype):
    given = codes(9, 40), draw(9, 1), codes(7, 40, seed=1), draw(7), draw(7)
    assert torch.equal(ops.linear_w8a8(*given, dtype), ops.linear_w8a8(*given).to(dtype))
    assert torch.equal(ops.linear_w8a8.reference(*given, dtype), ops.linear_w8a8(*given, dtype))
    convolved = codes(2, 4, 5, 9), draw(2), codes(6, 4, 3, 3), draw(6), draw(6)
    found, exact = ops.conv2d_w8a8(*convolved, dtype=dtype), ops.conv2d_w8a8(*convolved)
    assert torch.equal(found, exact.to(dtype))
    assert found.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("terms", [1, 40, 67])
def test_weights_of_four_bits_and_float_activations(dtype, terms):
    x, weight, weight_scale, bias = draw(9, terms).to(dtype), codes(7, terms, bits=4), draw(7), draw(7)
    out = ops.linear_w4a16(x, pack_rows(weight), weight_scale, bias)
    assert out.dtype == dtype
    expected = F.linear(x.double(), weight.double() * weight_scale.double()[:, None], bias.double())
    torch.testing.assert_close(out.double(), expected, rtol=torch.finfo(dtype).eps, atol=1e-4)


def test_any_layout():
    x, weight = codes(40, 9).t(), codes(40, 7, bits=4).t()
    scale, weight_scale, bias = draw(18, 1)[::2], draw(14)[::2], draw(14)[1::2]
    plain = [tensor.contiguous() for tensor in (x, scale, weight, weight_scale, bias)]
    expected = ops.linear_w8a8(*plain)
    assert torch.equal(ops.linear_w8a8(x, scale, weight, weight_scale, bias), expected)
    packed = pack_rows(plain[2]).t().contiguous().t()
    assert not packed.is_contiguous()
    assert torch.equal(ops.linear_w4a8(x, scale, packed, weight_scale, bias), expected)
    rows = draw(67, 6).t()
    found, found_scale = ops.quantize_rows(rows)
    assert found.is_contiguous()
    assert torch.equal(found, ops.quantize_rows(rows.contiguous())[0])
    assert torch.equal(found_scale, ops.quantize_rows(rows.contiguous())[1])


@given(rows=st.integers(0, 5), terms=st.integers(0, 9), seed=st.integers(0, 100))
def test_packed_rows_are_those_of_a_bundle(rows, terms, seed):
    weight = codes(rows, terms, bits=4, seed=seed)
    packed = pack_rows(weight)
    assert packed.shape == (rows, (terms + 1) // 2)
    assert torch.equal(unpack_rows(packed, terms), weight)
    for row, its_bytes in zip(weight, packed, strict=True):
        assert torch.equal(pack(row, 4), its_bytes)


CALLS = {
    "quantize_rows": lambda rows, terms, _: (draw(rows, terms),),
    "silu_quantize_rows": lambda rows, terms, _: (draw(rows, terms),),
    "norm_quantize_rows": lambda rows, terms, _: (draw(rows, terms), draw(terms), draw(terms), 1e-5),
    "linear_w8a8": lambda rows, terms, bias: (
        *(codes(rows, terms), draw(rows, 1), codes(6, terms), draw(6)),
        draw(6).requires_grad_() if bias else None,
    ),
    "linear_w8a8 in bfloat16": lambda rows, terms, bias: (*CALLS["linear_w8a8"](rows, terms, bias), torch.bfloat16),
    "linear_w4a8": lambda rows, terms, bias: (
        *(codes(rows, terms), draw(rows, 1), pack_rows(codes(6, terms, bits=4)), draw(6)),
        draw(6).requires_grad_() if bias else None,
    ),
    "linear_w4a16": lambda rows, terms, bias: (
        *(draw(rows, terms).requires_grad_(), pack_rows(codes(6, terms, bits=4)), draw(6)),
        draw(6).requires_grad_() if bias else None,
    ),
}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("bias", [True, False])
def test_opcheck(name, bias):
    for rows, terms in ((3, 10), (1, 7), (0, 8)):
        torch.library.opcheck(getattr(torch.ops.nibble, name.split()[0]).default, CALLS[name](rows, terms, bias))


def test_gradients_by_hand():
    x, weight, weight_scale = draw(5, 12).requires_grad_(), codes(6, 12, bits=4), draw(6)
    bias, gradient = draw(6).requires_grad_(), draw(5, 6, seed=1)
    ops.linear_w4a16(x, pack_rows(weight), weight_scale, bias).backward(gradient)
    torch.testing.assert_close(x.grad, gradient @ (weight * weight_scale[:, None]))
    torch.testing.assert_close(bias.grad, gradient.sum(0))
    bias.grad = None
    ops.linear_w8a8(codes(5, 12), torch.ones(5, 1), weight, weight_scale, bias).backward(gradient)
    torch.testing.assert_close(bias.grad, gradient.sum(0))


@pytest.mark.parametrize("name", ["linear_w8a8", "linear_w4a8", "linear_w4a16"])
def test_compiles_as_one_graph(name):
    weight, weight_scale, bias = codes(6, 10, bits=4), draw(6), draw(6).requires_grad_()
    weight = weight if name == "linear_w8a8" else pack_rows(weight)

    def layer(x: Tensor) -> Tensor:
        inputs = (x,) if name == "linear_w4a16" else ops.quantize_rows(x)
        return getattr(ops, name)(*inputs, weight, weight_scale, bias).relu()

    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager", dynamic=True)
    for rows in (3, 5):
        assert torch.equal(compiled(draw(rows, 10)), layer(draw(rows, 10)))
    compiled(draw(3, 10)).sum().backward()
    by_compiled, bias.grad = bias.grad, None
    layer(draw(3, 10)).sum().backward()
    torch.testing.assert_close(by_compiled, bias.grad)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ops.quantize_rows(codes(2, 3)), "torch.int8; give float16"),
        (lambda: ops.quantize_rows(draw(2, 3).double()), "torch.float64; give float16"),
        (lambda: ops.quantize_rows(torch.tensor(1.0)), "a scalar has no rows"),
        (lambda: ops.silu_quantize_rows(codes(2, 3)), "torch.int8; give float16"),
        (lambda: ops.norm_quantize_rows(draw(2, 3), draw(4), draw(3), 1e-5), r"weight is .*give torch.float32 \(3,\)"),
        (lambda: ops.norm_quantize_rows(draw(2, 3), draw(3), draw(3).half(), 1e-5), "bias is torch.float16"),
        (lambda: ops.linear_w8a8(draw(2, 3), *unit(2, 4)[:1], codes(4, 3), unit(2, 4)[1], None), "torch.float32"),
        (lambda: ops.linear_w8a8(codes(2, 3), unit(2, 4)[0], codes(4, 5), unit(2, 4)[1], None), r"\(2, 3\) and \(4, 5"),
        (lambda: ops.linear_w8a8(codes(2, 3), torch.ones(2), codes(4, 3), torch.ones(4), None), r"give .* \(2, 1\)"),
        (lambda: ops.linear_w8a8(codes(2, 3), unit(2, 4)[0], codes(4, 3), torch.ones(5), None), "weight_scale is"),
        (lambda: ops.linear_w8a8(codes(2, 3), *unit(2, 4)[:1], codes(4, 3), torch.ones(4), torch.ones(3)), "bias is"),
        (
            lambda: ops.linear_w8a8(codes(2, 3), *unit(2, 4)[:1], codes(4, 3), torch.ones(4), None, torch.int32),
            "result",
        ),
        (lambda: ops.linear_w4a8(codes(2, 3), unit(2, 4)[0], codes(4, 2), unit(2, 4)[1], None), "not torch.uint8"),
        (
            lambda: ops.linear_w4a8(codes(2, 3), unit(2, 4)[0], pack_rows(codes(4, 5, bits=4)), torch.ones(4), None),
            "ceil",
        ),
        (lambda: ops.linear_w4a16(codes(2, 3), pack_rows(codes(4, 3, bits=4)), torch.ones(4), None), "give float16"),
        (
            lambda: ops.linear_w4a16(draw(2, 3), pack_rows(codes(4, 3, bits=4)), torch.ones(4).half(), None),
            "give torch.float32",
        ),
    ],
)
def test_what_is_wrong_is_said(call, message):
    with pytest.raises(RuntimeError, match=message):
        call()
