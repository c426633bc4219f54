"""The Triton kernels against the reference: in Triton's interpreter, or compiled where there is a GPU."""

import re

import pytest
import torch
import torch.nn.functional as F
from compile_triton import Kernel, compile_all
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

pytest.importorskip("triton", reason="Triton is not installed")

from nibble.kernels import checks, ops
from nibble.kernels.triton import library, rows

TRITON = library.functions()
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SIZES = st.integers(0, 70)
# NumPy in the interpreter says aloud what happens to a NaN.
pytestmark = pytest.mark.filterwarnings("ignore:invalid value")


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE)


def codes(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-128, 128, shape, dtype=torch.int8, generator=generator).to(DEVICE)


@settings(deadline=None, max_examples=15)
@given(count=st.integers(0, 9), terms=SIZES, seed=st.integers(0, 100), dtype=st.sampled_from(checks.FLOATS))
@example(count=17, terms=1000, seed=0, dtype=torch.float32)
@example(count=1, terms=1, seed=0, dtype=torch.bfloat16)
def test_rows_are_quantized_as_the_reference_does(count, terms, seed, dtype):
    x = (draw(count, terms, seed=seed) * 10 ** draw(count, 1, seed=seed + 1)).to(dtype)
    x[::3] = 0
    found, scale = TRITON["quantize_rows"](x)
    expected, expected_scale = ops.quantize_rows.reference(x)
    assert found.dtype == torch.int8
    assert torch.equal(found, expected)
    assert torch.equal(scale, expected_scale)


def test_halves_go_to_the_even_code():
    x = torch.tensor([[-127.0, -2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 126.5]], device=DEVICE)
    assert TRITON["quantize_rows"](x)[0].tolist() == [[-127, -2, -2, 0, 0, 2, 2, 126]]


@pytest.mark.parametrize("terms", [67, 20_001])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_bad_row_has_a_bad_scale_and_harms_no_other(bad, terms):
    x = draw(3, terms)
    good_codes, good_scale = TRITON["quantize_rows"](x)
    x[1, 20] = bad
    found, scale = TRITON["quantize_rows"](x)
    assert scale.isfinite().flatten().tolist() == [True, False, True]
    assert torch.equal(found[::2], good_codes[::2])
    assert torch.equal(scale[::2], good_scale[::2])


@pytest.mark.parametrize("terms", [16_384, 16_385, 20_000])
@pytest.mark.parametrize("count", [0, 1, 3])
@pytest.mark.parametrize("dtype", checks.FLOATS)
def test_long_rows_are_quantized_as_the_reference_does(terms, count, dtype):
    x = (draw(count, terms) * 10 ** draw(count, 1, seed=1)).to(dtype)
    x[1:2] = 0
    found, scale = TRITON["quantize_rows"](x)
    expected, expected_scale = ops.quantize_rows.reference(x)
    assert torch.equal(found, expected)
    assert torch.equal(scale, expected_scale)


def test_a_row_of_two_million_terms():
    """Such is the second convolution of a long utterance, which is one row. A block of Triton ends at 2^20."""
    x = draw(1, 2_000_001).to(torch.bfloat16)
    x[0, -1] = 50  # in the last chunk, which is the smallest
    found, scale = TRITON["quantize_rows"](x)
    expected, expected_scale = ops.quantize_rows.reference(x)
    assert torch.equal(found, expected)
    assert torch.equal(scale, expected_scale)


@pytest.mark.parametrize("terms", [67, 20_001])
def test_rows_of_subnormal_numbers(terms):
    x = draw(3, terms) * torch.tensor([[1e-38], [1e-41], [1e-44]], device=DEVICE)
    found, scale = TRITON["quantize_rows"](x)
    expected, expected_scale = ops.quantize_rows.reference(x)
    assert torch.equal(found, expected)
    assert torch.equal(scale, expected_scale)


def test_any_layout():
    x = draw(67, 3, 2).permute(2, 1, 0)
    found, scale = TRITON["quantize_rows"](x)
    assert found.is_contiguous()
    assert scale.shape == (2, 3, 1)
    assert torch.equal(found, ops.quantize_rows.reference(x)[0])


@pytest.mark.parametrize("terms", [1, 64, 67, 1000, 20_000])
@pytest.mark.parametrize("dtype", checks.FLOATS)
def test_what_makes_rows_and_their_codes(terms, dtype):
    """Sums in another order may move a value across the middle between two codes; the value must then be there."""
    x, weight, bias = (5 + draw(7, terms)).to(dtype), draw(terms), draw(terms, seed=1)
    normed = F.layer_norm(x.float(), (terms,), weight, bias, 1e-3)
    for found, expected, made in (
        (TRITON["silu_quantize_rows"](x), ops.silu_quantize_rows.reference(x), F.silu(x.float())),
        (
            TRITON["norm_quantize_rows"](x, weight, bias, 1e-3),
            ops.norm_quantize_rows.reference(x, weight, bias, 1e-3),
            normed,
        ),
    ):
        torch.testing.assert_close(found[1], expected[1], rtol=1e-5, atol=1e-9)
        torch.testing.assert_close(found[0] * found[1], made, rtol=1e-4, atol=0.5001 * found[1].max().item())
        assert (found[0] != expected[0]).float().mean() <= 0.01


def test_sizes_that_do_not_fit():
    with pytest.raises(RuntimeError, match="give float16"):
        TRITON["quantize_rows"](codes(2, 3))
    with pytest.raises(RuntimeError, match="weight is"):
        TRITON["norm_quantize_rows"](draw(2, 3), draw(4), draw(3), 1e-5)


def test_what_they_compile_to(tmp_path, disassembled):
    """Without a GPU: they compile, and the instructions are those that are meant."""
    # The largest blocks: what fits the registers there does so in smaller ones.
    (longest, warps), (chunk, chunk_warps) = rows._block(rows.LONGEST), rows._block(rows.CHUNK)
    types = {"x": "*bf16", "codes": "*i8", "scale": "*fp32", "weight": "*fp32", "bias": "*fp32", "largest": "*i32"}
    types |= {"eps": "fp32", "terms": "i32", "chunks": "i32"}

    def kernel(name: str, warps: int, **constants: object) -> Kernel:
        return Kernel(name, rows.__name__, name, types, constants, warps, multiples_of_16=["terms"])

    kernels = [
        kernel("_quantize_rows", warps, SILU=True, BLOCK=longest),
        kernel("_norm_quantize_rows", warps, BLOCK=longest),
        kernel("_largest_of_rows", chunk_warps, SILU=True, BLOCK=chunk),
        kernel("_quantize_chunks", chunk_warps, SILU=True, BLOCK=chunk),
    ]
    found = compile_all(kernels, tmp_path)
    assert len(found) == 12
    for name, made in found.items():
        assert not re.search(r"\b(LDL|STL)\b", disassembled(made.file)), f"{name} spills registers"
        # Flushed to zero, the smallest scales would be those of a row of zeros.
        assert "largest" in name or "div.rn.f32" in made.ptx, name
