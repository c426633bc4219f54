"""What training and evaluation would do on a GPU, traced without one at the sizes of hardware=gpu and hardware=h200.

`pretend.py` says how, `costs.py` what is counted. The targets are those of one step of conformer_l: native at most 1.1
times as long as float by the model, on a ramp 1.5 times, at most 1.3 times its launches. They are reached; the limits
keep what is.
"""

import pytest

pytest.importorskip("triton", reason="Triton is not installed")

import ranges
from run_trace import run_trace

from nibble.errors import UserError
from nibble.kernels.compiling import cxx

SYNCHRONISATIONS = 5  # a step, target
SPILLED_BYTES = 16  # of stack, a thread: what is reached; 64 may be
SHARED_BYTES = 99 * 1024  # of a block on the smallest, sm_86 and sm_120
COMPILES_IN_S = 20
# phase -> (milliseconds, launches), each against float: what is reached, and the target
TARGETS = {"int8": (1.1, 1.3), "rules": (1.1, 1.3), "ramp": (1.5, 1.3)}
REACHED = {"int8": (1.1, 1.0), "rules": (1.1, 1.0), "ramp": (1.15, 1.3)}


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory):
    try:
        cxx()
    except UserError as error:
        pytest.skip(str(error))
    return run_trace(tmp_path_factory.mktemp("gpu_trace"))


def steps(trace, *phases):
    return [row for row in trace["steps"] if row["phase"] in (phases or TARGETS)]


def test_every_triton_launch_is_within_limits(trace):
    """A block of at most 2^20 elements, a grid that CUDA takes, and no size that 32 bits do not hold."""
    assert len(trace["kernels"]) > 10
    assert not [wrong for kernel in trace["kernels"] for wrong in kernel["wrong"]]


def test_every_triton_kernel_compiles_for_each_gpu(trace):
    for kernel in trace["kernels"]:
        assert {one["capability"] for one in kernel["compiled"]} == {80, 90, 120}
        for one in kernel["compiled"]:
            what = f"{kernel['name']} {kernel['constants']} for sm_{one['capability']}"
            assert one["spilled_bytes"] <= SPILLED_BYTES, what
            assert one["shared_bytes"] <= SHARED_BYTES, what
            assert one["seconds"] <= COMPILES_IN_S, what


def compiled(trace, name):
    """The instructions of a kernel, for each of its variants and GPUs."""
    found = [
        set(one["instructions"]) for kernel in trace["kernels"] if kernel["name"] == name for one in kernel["compiled"]
    ]
    assert found, f"{name} was not launched"
    return found


def test_products_of_codes_run_on_integer_tensor_cores(trace):
    for name in ("linear._linear_w8a8", "convolution._convolve", "recurrence._forward"):
        for instructions in compiled(trace, name):
            assert any("mma" in one and "s8" in one for one in instructions), name


def test_divisions_and_scales_are_rounded_as_ieee_754_says(trace):
    """Flushed to zero, the smallest scales would be those of a row of zeros."""
    for name in (
        "rows._quantize_rows",
        "rows._norm_quantize_rows",
        "rows._quantize_chunks",
        "weights._quantize_weights",
    ):
        for instructions in compiled(trace, name):
            assert "div.rn.f32" in instructions, name
    for instructions in compiled(trace, "weights._quantize_weights"):
        assert any(one.startswith("cvt.rn.f16") for one in instructions)


def test_the_optimizer_updates_all_parameters_at_once(trace):
    assert set(trace["optimizers"].values()) <= {"foreach", "fused"}


def test_a_step_seldom_waits_for_the_gpu(trace):
    for row in steps(trace, "float", *TARGETS):
        waits = row["found"]["synchronisations"]
        assert sum(waits.values()) <= SYNCHRONISATIONS, (row["model"], row["profile"], row["phase"], waits)


@pytest.mark.parametrize("kind", ["DDP", "FSDP"])
def test_one_of_several_processes_exchanges_its_gradients(trace, kind):
    """All parameters together: the launches beyond those of one GPU are copies and sums of buckets."""
    collective = {"DDP": "c10d::allreduce_", "FSDP": "c10d::_reduce_scatter_base_"}[kind]
    for model in trace["optimizers"]:
        if "," in model:
            continue
        (row,) = (one for one in steps(trace, "rules") if (one["model"], one["profile"]) == (model, kind))
        assert row["found"]["by_operator"][collective] >= 1
        assert row["found"]["by_operator"]["triton::_quantize_weights"] == 1  # whole weights, and all at once


@pytest.mark.parametrize("phase", list(TARGETS))
def test_a_quantized_step_costs_little_more_than_a_float_one(trace, phase):
    for row in steps(trace, phase):
        if row["layers"] != "all":
            continue
        (base,) = (
            one["found"] for one in steps(trace, "float") if all(one[key] == row[key] for key in ("model", "profile"))
        )
        ratios = [row["found"][what] / base[what] for what in ("seconds", "launches")]
        for ratio, reached, target in zip(ratios, REACHED[phase], TARGETS[phase], strict=True):
            assert ratio <= reached, f"{row['profile']}: {ratio:.3f}, reached before {reached}, target {target}"


def test_no_operator_that_counts_in_32_bits_is_given_more(trace):
    """Elementwise operators of torch split what is larger; products and convolutions may not.

    `_int_mm` is not among them: torch and cuBLASLt give its sizes and strides 64 bits. At 1200 s the unfolded windows
    of the second convolution have more than 2^31 elements.
    """
    products = ("mm", "addmm", "bmm", "convolution", "convolution_backward", "embedding_dense_backward")
    for row in trace["steps"]:
        large = row["found"]["large"]
        assert not [name for name in large if name.split("::")[1] in products], (row["model"], row["profile"], large)


TTIR = """
    %c64 = arith.constant 64 : i32 loc(#loc3)
    %step = arith.constant dense<4096> : tensor<4xi32> loc(#loc3)
    %row = tt.get_program_id x : i32 loc(#loc77)
    %start = arith.muli %row, %terms : i32 loc(#loc1)
    %wide = arith.extsi %row : i32 to i64 loc(#loc1)
    %far = arith.muli %wide, %terms : i64 loc(#loc1)
    %within = arith.remsi %row, %c64 : i32 loc(#loc2)
    %near = arith.muli %within, %terms : i32 loc(#loc2)
    scf.for %k = %c0 to %c64 step %c1 : i32 {
      %at = arith.muli %k, %step : tensor<4xi32> loc(#loc2)
"""


def test_the_bounds_of_a_kernels_numbers():
    programs = 2**20
    assert ranges.overflows(TTIR, (programs, 1, 1), {"terms": 3000}) == [
        f"start = arith.muli: 0 ... {(programs - 1) * 3000}"
    ]
    assert not ranges.overflows(TTIR, (programs, 1, 1), {"terms": 1000})
