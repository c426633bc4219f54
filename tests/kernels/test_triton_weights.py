"""All weights in one launch against the reference: in Triton's interpreter, or compiled where there is a GPU.

What it compiles to is a test of the launch trace, tests/gpu_trace.
"""

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton", reason="Triton is not installed")

from nibble.kernels import ops
from nibble.kernels.triton import library
from nibble.kernels.triton import weights as kernels

TRITON = library.functions()
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
# NumPy in the interpreter says aloud what happens to a NaN, and to a scale that float16 does not hold.
pytestmark = [
    pytest.mark.filterwarnings("ignore:invalid value"),
    pytest.mark.filterwarnings("ignore:overflow encountered"),
]

SHAPES = [(5, 7), (3, 4, 31), (2, 8, 3, 3), (1, 1), (4, 1100), (6, 512)]


def draw(dtype: torch.dtype, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    weights = [torch.randn(shape, generator=generator) for shape in SHAPES]
    for weight, magnitude in zip(weights, (1, 1e-3, 1e-6, 1e-9, 1e3, 1e-2), strict=True):
        weight *= magnitude
    weights[0][2] = 0
    return [weight.to(DEVICE, dtype) for weight in weights]


def slices(weights: list[Tensor]) -> list[int]:
    return [weight[0].numel() for weight in weights]


def same(weights: list[Tensor], terms: list[int], bits: list[int]) -> None:
    codes, scale = TRITON["quantize_weights"](weights, terms, bits)
    expected, expected_scale = ops.quantize_weights.reference(weights, terms, bits)
    torch.testing.assert_close(scale, expected_scale, rtol=0, atol=0, equal_nan=True)
    for found, wanted, weight in zip(codes, expected, weights, strict=True):
        assert found.shape == weight.shape
        assert found.is_contiguous()
        assert found.data_ptr() % 16 == 0
        if weight.isfinite().all():
            assert torch.equal(found, wanted)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_codes_and_scales_are_the_references(dtype):
    weights = draw(dtype)
    same(weights, slices(weights), [4, 8, 2, 3, 4, 5])
    same(weights, slices(weights), [8] * len(weights))


def test_groups():
    weights = draw(torch.float32)
    same(weights[-2:], [110, 64], [4, 4])


def test_halves_go_to_the_even_code_and_codes_stay_in_range():
    """The float16 scale may be less than max|w| / Q, so that the largest weight lies beyond the highest code."""
    row = torch.tensor([[3.5, 0.25, 0.75, -0.25, -1.25, 1.75]], device=DEVICE)
    assert TRITON["quantize_weights"]([row], [6], [4])[0][0].tolist() == [[7, 0, 2, 0, -2, 4]]
    wide = torch.linspace(1, 2, 60, device=DEVICE).view(-1, 1) @ torch.ones(1, 3, device=DEVICE)
    codes, scale = TRITON["quantize_weights"]([wide], [3], [8])
    assert (wide[:, 0] / scale > 127).any()
    assert codes[0].unique().tolist() == [127]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e7])
def test_a_bad_slice_has_a_bad_scale_and_harms_no_other(bad):
    weights = draw(torch.float32)
    weights[4][1, 1000] = bad
    same(weights, slices(weights), [4] * len(weights))
    scale = TRITON["quantize_weights"](weights, slices(weights), [4] * len(weights))[1]
    assert scale.isfinite().logical_not().nonzero().tolist() == [[5 + 3 + 2 + 1 + 1]]


def test_tables_are_made_again_only_if_weights_moved(monkeypatch):
    made = []
    monkeypatch.setattr(kernels, "_on_device", lambda table, device: made.append(table) or table.to(device))
    kernels._places.cache_clear()  # earlier tests' weights may have lain where the clone below will
    kernels._layout.cache_clear()
    weights = draw(torch.float32, seed=1)
    bits = [7] * len(weights)
    same(weights, slices(weights), bits)
    assert len(made) == 3
    weights[0].mul_(2)
    same(weights, slices(weights), bits)
    assert len(made) == 3
    weights[0] = weights[0].clone()
    same(weights, slices(weights), bits)
    assert len(made) == 4


WEIGHT = torch.ones(4, 6)


@pytest.mark.parametrize(
    ("weights", "terms", "bits", "message"),
    [
        ([WEIGHT], [6, 6], [4], "1 weights, 2 terms and 1 bits"),
        ([], [], [], "0 weights"),
        ([WEIGHT], [5], [4], "in slices of 5"),
        ([WEIGHT.t()], [4], [4], "give a contiguous weight"),
        ([WEIGHT.double()], [6], [4], "float64"),
        ([WEIGHT, WEIGHT.half()], [6, 6], [4, 4], "float16 on cpu beside torch.float32"),
        ([WEIGHT], [6], [1], "1 bits; give 2 to 8"),
    ],
)
def test_what_does_not_fit(weights, terms, bits, message):
    with pytest.raises(RuntimeError, match=message):
        ops.quantize_weights(weights, terms, bits)


def test_opcheck():
    weights = [weight.cpu() for weight in draw(torch.float32)]
    torch.library.opcheck(torch.ops.nibble.quantize_weights.default, (weights, slices(weights), [4] * len(weights)))
