"""The Triton kernels against the reference: in Triton's interpreter, or compiled where there is a GPU."""

import json
import os
import re
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

pytest.importorskip("triton", reason="Triton is not installed")

from nibble.kernels import reference_fused, reference_linear
from nibble.kernels.triton import linear, rows

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
@given(count=st.integers(0, 9), terms=SIZES, seed=st.integers(0, 100), dtype=st.sampled_from(reference_linear.FLOATS))
@example(count=17, terms=1000, seed=0, dtype=torch.float32)
@example(count=1, terms=1, seed=0, dtype=torch.bfloat16)
def test_rows_are_quantized_as_the_reference_does(count, terms, seed, dtype):
    x = (draw(count, terms, seed=seed) * 10 ** draw(count, 1, seed=seed + 1)).to(dtype)
    x[::3] = 0
    found, scale = rows.quantize_rows(x)
    expected, expected_scale = reference_linear.quantize_rows(x)
    assert found.dtype == torch.int8
    assert torch.equal(found, expected)
    assert torch.equal(scale, expected_scale)


def test_halves_go_to_the_even_code():
    x = torch.tensor([[-127.0, -2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 126.5]], device=DEVICE)
    assert rows.quantize_rows(x)[0].tolist() == [[-127, -2, -2, 0, 0, 2, 2, 126]]


@pytest.mark.parametrize("terms", [67, 20_001])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_bad_row_has_a_bad_scale_and_harms_no_other(bad, terms):
    x = draw(3, terms)
    good_codes, good_scale = rows.quantize_rows(x)
    x[1, 20] = bad
    found, scale = rows.quantize_rows(x)
    assert scale.isfinite().flatten().tolist() == [True, False, True]
    assert torch.equal(found[::2], good_codes[::2])
    assert torch.equal(scale[::2], good_scale[::2])


@pytest.mark.parametrize("terms", [16_384, 16_385, 20_000])
@pytest.mark.parametrize("count", [0, 1, 3])
@pytest.mark.parametrize("dtype", reference_linear.FLOATS)
def test_long_rows_are_quantized_as_the_reference_does(terms, count, dtype):
    x = (draw(count, terms) * 10 ** draw(count, 1, seed=1)).to(dtype)
    x[1:2] = 0
    found, scale = rows.quantize_rows(x)
    expected, expected_scale = reference_linear.quantize_rows(x)
    assert torch.equal(found, expected)
    assert torch.equal(scale, expected_scale)


def test_a_row_of_two_million_terms():
    """Such is the second convolution of a long utterance, which is one row. A block of Triton ends at 2^20."""
    x = draw(1, 2_000_001).to(torch.bfloat16)
    x[0, -1] = 50  # in the last chunk, which is the smallest
    found, scale = rows.quantize_rows(x)
    expected, expected_scale = reference_linear.quantize_rows(x)
    assert torch.equal(found, expected)
    assert torch.equal(scale, expected_scale)


@pytest.mark.parametrize("terms", [67, 20_001])
def test_rows_of_subnormal_numbers(terms):
    x = draw(3, terms) * torch.tensor([[1e-38], [1e-41], [1e-44]], device=DEVICE)
    found, scale = rows.quantize_rows(x)
    expected, expected_scale = reference_linear.quantize_rows(x)
    assert torch.equal(found, expected)
    assert torch.equal(scale, expected_scale)


def test_any_layout():
    x = draw(67, 3, 2).permute(2, 1, 0)
    found, scale = rows.quantize_rows(x)
    assert found.is_contiguous()
    assert scale.shape == (2, 3, 1)
    assert torch.equal(found, reference_linear.quantize_rows(x)[0])
    weight, scales = codes(40, 7).t(), draw(14)[::2]
    assert not weight.is_contiguous()
    bias = draw(80, seed=1)[::2][:7]
    given = (codes(40, 9).t()[:, :40], draw(18, 1)[::2], codes(40, 7).t(), scales, bias)
    assert torch.equal(linear.linear_w8a8(*given), reference_linear.linear_w8a8(*given))


@pytest.mark.parametrize("terms", [1, 64, 67, 1000, 20_000])
@pytest.mark.parametrize("dtype", reference_linear.FLOATS)
def test_what_makes_rows_and_their_codes(terms, dtype):
    """Sums in another order may move a value across the middle between two codes; the value must then be there."""
    x, weight, bias = (5 + draw(7, terms)).to(dtype), draw(terms), draw(terms, seed=1)
    normed = F.layer_norm(x.float(), (terms,), weight, bias, 1e-3)
    for found, expected, made in (
        (rows.silu_quantize_rows(x), reference_fused.silu_quantize_rows(x), F.silu(x.float())),
        (
            rows.norm_quantize_rows(x, weight, bias, 1e-3),
            reference_fused.norm_quantize_rows(x, weight, bias, 1e-3),
            normed,
        ),
    ):
        torch.testing.assert_close(found[1], expected[1], rtol=1e-5, atol=1e-9)
        torch.testing.assert_close(found[0] * found[1], made, rtol=1e-4, atol=0.5001 * found[1].max().item())
        assert (found[0] != expected[0]).float().mean() <= 0.01


@settings(deadline=None, max_examples=15)
@given(count=SIZES, terms=SIZES, outputs=SIZES, seed=st.integers(0, 100), with_bias=st.booleans())
@example(count=17, terms=129, outputs=65, seed=0, with_bias=True)
@example(count=300, terms=65, outputs=130, seed=0, with_bias=True)
@example(count=1, terms=1, outputs=1, seed=0, with_bias=False)
def test_products_are_the_references(count, terms, outputs, seed, with_bias):
    given = (
        codes(count, terms, seed=seed),
        draw(count, 1, seed=seed),
        codes(outputs, terms, seed=seed + 1),
        draw(outputs, seed=seed + 2),
        draw(outputs, seed=seed + 3) if with_bias else None,
    )
    assert torch.equal(linear.linear_w8a8(*given), reference_linear.linear_w8a8(*given))


def test_sums_at_the_ends_of_their_range_are_exact():
    worst = torch.full((2, 1000), -128, dtype=torch.int8, device=DEVICE)
    unit = torch.ones(2, 1, device=DEVICE), torch.ones(2, device=DEVICE)
    assert linear.linear_w8a8(worst, unit[0], worst, unit[1], None).unique().tolist() == [1000 * 2**14]


def test_sizes_that_do_not_fit():
    with pytest.raises(RuntimeError, match=r"\(2, 3\) and \(4, 5"):
        linear.linear_w8a8(codes(2, 3), draw(2, 1), codes(4, 5), draw(4), None)
    with pytest.raises(RuntimeError, match="give float16"):
        rows.quantize_rows(codes(2, 3))
    with pytest.raises(RuntimeError, match="weight is"):
        rows.norm_quantize_rows(draw(2, 3), draw(4), draw(3), 1e-5)


COMPILE = """
import json, sys, pathlib, triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from nibble.kernels.triton import linear, rows

found = {}
numbers = {"rows": "i32", "outputs": "i32", "terms": "i32", "chunks": "i32", "eps": "fp32"}
def compile(name, kernel, capability, constants, warps):
    types = {"x": "*bf16", "codes": "*i8", "scale": "*fp32", "weight": "*i8" if "linear" in name else "*fp32",
             "weight_scale": "*fp32", "bias": "*fp32", "out": "*fp32", "largest": "*i32", **numbers}
    signature = {key: "constexpr" if key in constants else types[key] for key in kernel.arg_names}
    aligned = {(kernel.arg_names.index(key),): [["tt.divisibility", 16]] for key in signature
               if key in types and key not in ("eps", "chunks")}
    source = ASTSource(kernel, signature, constants, aligned)
    made = triton.compile(source, target=GPUTarget("cuda", capability, 32),
                          options={"num_warps": warps, "num_stages": 4, "enable_fp_fusion": False})
    cubin = pathlib.Path(sys.argv[1], f"{name}_{capability}.cubin")
    cubin.write_bytes(made.asm["cubin"])
    found[str(cubin)] = made.asm["ptx"]
for capability in (80, 90, 120):
    # The largest blocks: what fits the registers there does so in smaller ones.
    block, warps = rows._block(rows.LONGEST)
    compile("_quantize_rows", rows._quantize_rows, capability, {"SILU": True, "BLOCK": block}, warps)
    compile("_norm_quantize_rows", rows._norm_quantize_rows, capability, {"BLOCK": block}, warps)
    block, warps = rows._block(rows.CHUNK)
    for name in ("_largest_of_rows", "_quantize_chunks"):
        compile(name, getattr(rows, name), capability, {"SILU": True, "BLOCK": block}, warps)
    tile = {"HAS_BIAS": True, "TERMS": 512, "BLOCK_ROWS": 128, "BLOCK_OUTPUTS": 128, "BLOCK_TERMS": 64}
    compile("_linear_w8a8", linear._linear_w8a8, capability, tile, 8)
    tile |= {"BLOCK_ROWS": 16, "BLOCK_OUTPUTS": 64}
    compile("_linear_w8a8_few", linear._linear_w8a8, capability, tile, 4)
print(json.dumps(found))
"""


def test_what_they_compile_to(tmp_path, disassembled):
    """Without a GPU: they compile, and the instructions are those that are meant."""
    env = {**os.environ, "TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", COMPILE, str(tmp_path)], env=env, capture_output=True, text=True, check=False
    )
    assert not done.returncode, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert len(found) == 18
    for name, text in found.items():
        machine_code = disassembled(name)
        assert not re.search(r"\b(LDL|STL)\b", machine_code), f"{name} spills registers"
        if "linear" in name:
            wide = name.endswith("_90.cubin") and "few" not in name
            assert ("IGMMA" if wide else "IMMA.16832.S8.S8") in machine_code, name
            assert "FFMA" not in machine_code, f"{name}: rounded once where the reference rounds twice"
        elif "largest" not in name:
            # Flushed to zero, the smallest scales would be those of a row of zeros.
            assert "div.rn.f32" in text, name
