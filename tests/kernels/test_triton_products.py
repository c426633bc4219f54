"""The products in Triton against the reference: in its interpreter, or compiled where there is a GPU."""

import re

import pytest
import torch
from compile_triton import Kernel, compile_all
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

pytest.importorskip("triton", reason="Triton is not installed")

from nibble.kernels import checks, ops
from nibble.kernels.nibbles import pack_rows
from nibble.kernels.triton import convolution, library, linear

TRITON = library.functions()
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SIZES = st.integers(0, 70)
# NumPy in the interpreter says aloud what is too large for float16.
pytestmark = pytest.mark.filterwarnings("ignore:overflow", "ignore:invalid value")


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE)


def codes(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-128, 128, shape, dtype=torch.int8, generator=generator).to(DEVICE)


def rounded(exact: Tensor, dtype: torch.dtype) -> Tensor:
    """A float32 result in another type. To bfloat16 Triton's interpreter cuts off; compiled code rounds."""
    if dtype is torch.bfloat16 and DEVICE == "cpu":
        exact = (exact.view(torch.int32) & -(2**16)).view(torch.float32)
    return exact.to(dtype)


@settings(deadline=None, max_examples=15)
@given(
    count=SIZES,
    terms=SIZES,
    outputs=SIZES,
    seed=st.integers(0, 100),
    with_bias=st.booleans(),
    dtype=st.sampled_from(checks.FLOATS),
)
@example(count=17, terms=129, outputs=65, seed=0, with_bias=True, dtype=torch.float32)
@example(count=300, terms=65, outputs=130, seed=0, with_bias=True, dtype=torch.bfloat16)
@example(count=1, terms=1, outputs=1, seed=0, with_bias=False, dtype=torch.float32)
@example(count=3, terms=128, outputs=64, seed=0, with_bias=True, dtype=torch.float16)
def test_linear_is_the_references(count, terms, outputs, seed, with_bias, dtype):
    given = (
        codes(count, terms, seed=seed),
        draw(count, 1, seed=seed),
        codes(outputs, terms, seed=seed + 1),
        draw(outputs, seed=seed + 2),
        draw(outputs, seed=seed + 3) if with_bias else None,
    )
    found = TRITON["linear_w8a8"](*given, dtype)
    assert found.dtype == dtype
    assert torch.equal(found, rounded(ops.linear_w8a8.reference(*given), dtype))


def test_weights_of_four_bits_without_the_cuda_library():
    packed = pack_rows(codes(7, 9) >> 4)
    given = codes(5, 9), draw(5, 1), packed, draw(7), draw(7)
    assert torch.equal(TRITON["linear_w4a8"](*given), ops.linear_w4a8.reference(*given))


def test_any_layout():
    bias = draw(80, seed=1)[::2][:7]
    given = (codes(40, 9).t()[:, :40], draw(18, 1)[::2], codes(40, 7).t(), draw(14)[::2], bias)
    assert not given[2].is_contiguous()
    assert torch.equal(TRITON["linear_w8a8"](*given), ops.linear_w8a8.reference(*given))


def test_sums_at_the_ends_of_their_range_are_exact():
    worst = torch.full((2, 1000), -128, dtype=torch.int8, device=DEVICE)
    unit = torch.ones(2, 1, device=DEVICE), torch.ones(2, device=DEVICE)
    assert TRITON["linear_w8a8"](worst, unit[0], worst, unit[1], None).unique().tolist() == [1000 * 2**14]


def test_what_does_not_fit_is_said():
    with pytest.raises(RuntimeError, match=r"\(2, 3\) and \(4, 5"):
        TRITON["linear_w8a8"](codes(2, 3), draw(2, 1), codes(4, 5), draw(4), None)
    with pytest.raises(RuntimeError, match="ask for a result"):
        TRITON["linear_w8a8"](codes(2, 3), draw(2, 1), codes(4, 3), draw(4), None, torch.int32)


def convolved(batch, channels, outputs, kernel, size, groups=1, seed=0, bias=True) -> tuple[Tensor | None, ...]:
    """Arguments of a convolution up to its bias."""
    return (
        codes(batch, channels, *size, seed=seed).contiguous(memory_format=torch.channels_last),
        draw(batch, seed=seed),
        codes(outputs, channels // groups, *kernel, seed=seed + 1),
        draw(outputs, seed=seed + 2),
        draw(outputs, seed=seed + 3) if bias else None,
    )


# channels, outputs, kernel, size, stride, padding, dilation, groups
CONVOLUTIONS = {
    "first of a subsampling": (1, 130, (3, 3), (21, 17), (2, 2), (0, 0), (1, 1), 1),
    "second of a subsampling": (64, 20, (3, 3), (21, 10), (2, 2), (0, 0), (1, 1), 1),
    "channels that fill no block": (5, 7, (3, 2), (9, 8), (1, 2), (1, 0), (2, 1), 1),
    "one tap": (6, 3, (1, 1), (1, 5), (1, 1), (0, 0), (1, 1), 1),
    "padded more than the filter": (3, 4, (2, 2), (3, 3), (1, 1), (3, 3), (1, 1), 1),
    "depthwise": (67, 67, (1, 5), (1, 40), (1, 1), (0, 2), (1, 1), 67),
    "depthwise, causal": (8, 8, (1, 9), (1, 44), (1, 1), (0, 0), (1, 1), 8),
    "depthwise in two dimensions": (6, 6, (3, 2), (9, 8), (2, 1), (1, 1), (1, 2), 6),
    "in two groups": (6, 4, (1, 3), (1, 9), (1, 1), (0, 1), (1, 1), 2),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolution_is_the_references(name):
    channels, outputs, kernel, size, *move, groups = CONVOLUTIONS[name]
    given = convolved(2, channels, outputs, kernel, size, groups)
    found = TRITON["conv2d_w8a8"](*given, *move, groups)
    assert torch.equal(found, ops.conv2d_w8a8.reference(*given, *move, groups))
    assert found.is_contiguous(memory_format=torch.channels_last)
    short = TRITON["conv2d_w8a8"](*given[:4], None, *move, groups, torch.float16)
    assert torch.equal(short, ops.conv2d_w8a8.reference(*given[:4], None, *move, groups, torch.float16))


def test_convolution_of_nothing_and_of_any_layout():
    given = convolved(0, 4, 6, (3, 3), (5, 5))
    assert TRITON["conv2d_w8a8"](*given, (1, 1), (0, 0), (1, 1), 1).shape == (0, 6, 3, 3)
    x, scale, weight, weight_scale, bias = convolved(2, 4, 6, (3, 3), (5, 6))
    apart = (x.contiguous().flip(0).flip(0)[..., :5], scale, weight.transpose(2, 3), weight_scale, bias)
    move = (1, 1), (0, 0), (1, 1), 1
    assert torch.equal(TRITON["conv2d_w8a8"](*apart, *move), ops.conv2d_w8a8.reference(*apart, *move))


def test_convolution_sums_at_the_ends_of_their_range_are_exact():
    x = torch.full((1, 64, 3, 3), -128, dtype=torch.int8, device=DEVICE)
    one = torch.ones(1, device=DEVICE)
    move = (1, 1), (0, 0), (1, 1)
    assert TRITON["conv2d_w8a8"](x, one, x, one, None, *move, 1).item() == 64 * 9 * 2**14
    found = TRITON["conv2d_w8a8"](x, one, x.view(64, 1, 3, 3), one.expand(64), None, *move, 64)
    assert found.unique().tolist() == [9 * 2**14]


@pytest.mark.parametrize(("channels", "outputs"), [(1, 70), (64, 20)])
def test_codes_of_a_rectified_convolution_are_the_references(channels, outputs):
    heights = torch.tensor([10, 4, 0, 99], device=DEVICE)
    given = convolved(4, channels, outputs, (3, 3), (21, 17), bias=channels == 1)
    found, scale = TRITON["conv2d_relu_quantize"](*given, (2, 2), heights)
    expected, expected_scale = ops.conv2d_relu_quantize.reference(*given, (2, 2), heights)
    assert torch.equal(found, expected)
    assert torch.equal(scale, expected_scale)
    assert scale[2] == 1  # nothing is heard
    assert found.is_contiguous(memory_format=torch.channels_last)


def test_a_bad_utterance_has_a_bad_scale_and_harms_no_other():
    codes_, scale, *layer = convolved(3, 2, 5, (3, 3), (9, 9))
    heights = torch.full((3,), 4, device=DEVICE)
    good, good_scale = TRITON["conv2d_relu_quantize"](codes_, scale, *layer, (2, 2), heights)
    scale[1] = float("nan")
    found, found_scale = TRITON["conv2d_relu_quantize"](codes_, scale, *layer, (2, 2), heights)
    assert found_scale.isfinite().tolist() == [True, False, True]
    assert torch.equal(found[::2], good[::2])
    assert torch.equal(found_scale[::2], good_scale[::2])


POINTERS = {"codes": "*i8", "scale": "*fp32", "weight": "*i8", "weight_scale": "*fp32", "bias": "*fp32"}
POINTERS |= {"heights": "*i64", "largest": "*i32", "out_scale": "*fp32", "out": "*bf16"}
ALL = (80, 90, 120)


def kernel(file, name: str, label: str, warps: int, gpus: tuple[int, ...], **constants: object) -> Kernel:
    """For sizes of layers that are multiples of 16."""
    numbers = ["rows", "outputs", "terms", "channels", *convolution._SIZES]
    numbers += [f"{what}_{way}" for what in ("stride", "padding", "dilation") for way in ("down", "right")]
    types = POINTERS | dict.fromkeys(numbers, "i32") | ({"out": "*i8"} if label == "codes" else {})
    sizes = ["outputs", "terms", "channels"]
    return Kernel(label, file.__name__, name, types, {"HAS_BIAS": True, **constants}, warps, 4, sizes, gpus)


def linear_kernel(label: str, gpus: tuple[int, ...], warps: int, rows: int, outputs: int, whole: bool = True) -> Kernel:
    tile = {"WHOLE": whole, "BLOCK_ROWS": rows, "BLOCK_OUTPUTS": outputs, "BLOCK_TERMS": linear.BLOCK_TERMS}
    return kernel(linear, "_linear_w8a8", label, warps, gpus, **tile)


def window_kernel(label: str, gpus: tuple[int, ...], channels: int, step: int, warps: int = 8, tile: int = 128):
    blocks = {"BLOCK_ROWS": tile, "BLOCK_OUTPUTS": tile, "BLOCK_TERMS": 64 if channels > 1 else 32}
    of = {"CHANNELS": channels, "KERNEL_WIDTH": 3, "TERMS": 9 * channels, "PADDED": False, "STEP": step}
    return kernel(convolution, "_convolve", label, warps, gpus, **of, **blocks)


def test_what_they_compile_to(tmp_path, disassembled):
    """Without a GPU: they compile without spills, and the instructions are those that are meant."""
    depthwise = {"KERNEL_WIDTH": 31, "TAPS": 31, "BLOCK_POSITIONS": 32, "BLOCK_CHANNELS": 64}
    kernels = [
        linear_kernel("linear", ALL, 8, 128, 128),
        linear_kernel("rest", (80,), 8, 128, 128, whole=False),
        linear_kernel("few", (90,), 4, 16, 64),
        window_kernel("windows", ALL, 512, 0),
        window_kernel("smaller", (120,), 512, 0, 4, 64),
        window_kernel("largest", (90,), 1, 1),
        window_kernel("codes", ALL, 1, 2),
        kernel(convolution, "_depthwise", "depthwise", 4, ALL, **depthwise),
    ]
    found = compile_all(kernels, tmp_path)
    assert len(found) == 16
    for name, made in found.items():
        label, gpu = name.split("_")
        sass = disassembled(made.file)
        assert not re.search(r"\b(LDL|STL)\b", sass), f"{name} spills registers"
        assert made.shared_bytes <= 99 * 1024, name  # what a block may have on the smallest, sm_86 and sm_120
        if label != "codes":  # a division is made of such
            assert "FFMA" not in sass, f"{name}: rounded once where the reference rounds twice"
        if label not in ("codes", "largest"):
            assert "cvt.rn.bf16x2.f32" in made.ptx, f"{name}: cuts off where it should round"
        if label != "depthwise":
            assert ("IGMMA" if gpu == "90" and label != "few" else "IMMA.16832.S8.S8") in sass, name
        if label in ("linear", "few", "windows", "smaller"):
            assert re.search(r"LDGSTS\.E\.BYPASS\.(LTC128B\.)?128", sass), f"{name}: loads wait, or are narrow"
