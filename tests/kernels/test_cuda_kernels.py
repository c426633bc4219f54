"""The CUDA kernels: run by a GPU written in C++, looked at as machine code, and run by a real GPU where there is one.

`gpu_on_cpu.h` stands in for the GPU's instructions. Everything else is the source that nvcc compiles: the kernels, what
launches them, and what registers them with torch.
"""

import ctypes
import re
import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from refused_calls import BAD, refusal
from torch import Tensor

from nibble.errors import UserError
from nibble.kernels import checks, implementations, ops
from nibble.kernels.compiling import STABLE_ABI, cxx, run
from nibble.kernels.cuda import build, library
from nibble.kernels.gpu import missing_gpu
from nibble.kernels.nibbles import pack_rows

AMPERE, HOPPER = 80, 90
ROWS = st.one_of(st.integers(0, 20), st.sampled_from([64, 130]))
REGISTERS = 184  # of a thread: what is reached; 255 may be
HALVES = (torch.float16, torch.bfloat16)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def codes(*shape: int, bits: int = 8, seed: int = 0) -> Tensor:
    half = 2 ** (bits - 1)
    return torch.randint(-half, half, shape, dtype=torch.int8, generator=torch.Generator().manual_seed(seed))


def layer(rows: int, terms: int, outputs: int, seed: int = 0, bias: bool = True) -> tuple[Tensor | None, ...]:
    """Arguments of linear_w4a8."""
    packed = pack_rows(codes(outputs, terms, bits=4, seed=seed))
    if terms % 2:
        packed[:, -1] |= 0xA0  # the last half byte of an odd row means nothing
    shift = draw(outputs, seed=seed + 1) if bias else None
    return codes(rows, terms, seed=seed), draw(rows, 1, seed=seed), packed, draw(outputs, seed=seed + 2), shift


def close(found: Tensor, expected: Tensor, terms: int) -> bool:
    """Equal to the rounding of the result, and of sums in another order."""
    assert found.dtype == expected.dtype
    one, sums = torch.finfo(expected.dtype).eps, terms * torch.finfo(torch.float32).eps
    size = expected.float().abs()
    spread = size.amax() if size.numel() else 0.0
    return bool(((found.float() - expected.float()).abs() <= size * one + spread * sums + 1e-6).all())


@pytest.fixture(scope="session")
def emulated(tmp_path_factory: pytest.TempPathFactory):
    """emulated(capability) -> the operators, on CPU tensors, as a GPU of that version computes them."""
    try:
        compiler = cxx()
    except UserError as error:
        pytest.skip(str(error))
    made = tmp_path_factory.mktemp("gpu_on_cpu") / "libgpu_on_cpu.so"
    sources = [str(Path(__file__).with_name("gpu_on_cpu.cpp")), str(build.FOLDER / "operators.cpp")]
    flags = ["-std=c++17", "-O2", "-fPIC", "-shared", "-ffp-contract=off", f"-I{build.FOLDER}", *STABLE_ABI]
    names = ["-DNIBBLE_LIBRARY=nibble_gpu_on_cpu", "-DNIBBLE_KEY=CPU", '-DNIBBLE_SOURCES=""']
    names.append("-DNIBBLE_ROWS=640")  # of a grid, so that the tests go beyond
    link = [f"-L{Path(torch.__file__).parent / 'lib'}", "-ltorch_cpu", "-o", str(made)]
    run([compiler, *flags, *names, *sources, *link], "g++ 12 or later")
    for name in library.OPERATORS:
        torch.library.define(f"nibble_gpu_on_cpu::{name}", ops.OPERATORS[name].schema)
    torch.ops.load_library(made)
    control = ctypes.CDLL(str(made))

    def at(capability: int):
        control.emulate(capability)
        return torch.ops.nibble_gpu_on_cpu

    return at


@pytest.mark.parametrize("capability", [AMPERE, HOPPER])
def test_products_are_those_of_the_reference(emulated, capability):
    gpu = emulated(capability)

    @settings(deadline=None, max_examples=25)
    @given(
        rows=ROWS,
        terms=st.one_of(st.integers(0, 70), st.sampled_from([128, 288])),
        outputs=st.integers(0, 70),
        seed=st.integers(0, 1000),
        bias=st.booleans(),
    )
    @example(rows=0, terms=5, outputs=5, seed=0, bias=True)
    @example(rows=1, terms=0, outputs=5, seed=0, bias=True)
    @example(rows=1, terms=1, outputs=1, seed=0, bias=False)
    @example(rows=17, terms=1000, outputs=65, seed=0, bias=True)
    @example(rows=1000, terms=64, outputs=9, seed=0, bias=True)
    @example(rows=300, terms=160, outputs=130, seed=0, bias=False)  # the largest tiles, with a rest on each side
    def check(rows, terms, outputs, seed, bias):
        given = layer(rows, terms, outputs, seed, bias)
        assert torch.equal(gpu.linear_w4a8(*given), ops.linear_w4a8.reference(*given))

    check()


@pytest.mark.parametrize("capability", [AMPERE, HOPPER])
def test_products_at_the_extremes(emulated, capability):
    """At last the largest sum that the instructions' 32 bits hold, since their weights are 16 times too large."""
    gpu = emulated(capability)
    for x_code, code, terms in ((-128, 7, 1000), (127, -8, 1000), (-128, -8, 2**17 - 32)):
        given = (
            torch.full((1, terms), x_code, dtype=torch.int8),
            torch.ones(1, 1),
            pack_rows(torch.full((1, terms), code, dtype=torch.int8)),
            torch.ones(1),
            None,
        )
        assert gpu.linear_w4a8(*given).item() == x_code * code * terms


@pytest.mark.parametrize("capability", [AMPERE, HOPPER])
def test_any_layout(emulated, capability):
    gpu = emulated(capability)
    x, scale, packed, weight_scale, bias = layer(9, 64, 7)
    expected = ops.linear_w4a8.reference(x, scale, packed, weight_scale, bias)
    apart = [torch.stack((tensor, tensor), -1)[..., 0] for tensor in (x, scale, packed, weight_scale, bias)]
    assert not apart[0].is_contiguous()
    assert torch.equal(gpu.linear_w4a8(*apart), expected)
    # Contiguous, in sizes that allow copies of 16 bytes, but from an address that does not.
    shifted = torch.cat((x.new_zeros(1), x.flatten()))[1:].view_as(x)
    assert shifted.is_contiguous()
    assert torch.equal(gpu.linear_w4a8(shifted, scale, packed, weight_scale, bias), expected)


@pytest.mark.parametrize("dtype", checks.FLOATS)
def test_weights_of_four_bits_and_float_activations(emulated, dtype):
    gpu = emulated(AMPERE)

    @settings(deadline=None, max_examples=15)
    @given(rows=ROWS, terms=st.integers(0, 140), outputs=st.integers(0, 70), seed=st.integers(0, 1000))
    @example(rows=17, terms=1000, outputs=65, seed=0)
    @example(rows=300, terms=96, outputs=130, seed=0)
    def check(rows, terms, outputs, seed):
        _, _, packed, weight_scale, bias = layer(rows, terms, outputs, seed)
        given = (draw(rows, terms, seed=seed).to(dtype), packed, weight_scale, bias if seed % 2 else None)
        assert close(gpu.linear_w4a16(*given), ops.linear_w4a16.reference(*given), terms)

    check()


@pytest.mark.parametrize("dtype", HALVES)
def test_every_nibble_becomes_its_code(emulated, dtype):
    packed = pack_rows(torch.arange(-8, 8, dtype=torch.int8).repeat(16, 1))
    found = emulated(AMPERE).linear_w4a16(torch.eye(16, dtype=dtype), packed, torch.ones(16), None)
    assert found[:, 0].tolist() == list(range(-8, 8))


def test_bad_calls_are_refused_as_by_the_reference(emulated):
    gpu = emulated(AMPERE)
    for name, changes, words in BAD:
        if name in library.OPERATORS and "devices" not in words:  # all are CPU tensors here
            said = refusal(getattr(gpu, name).default, name, changes)
            assert said.startswith(f"{name}: "), (name, changes, said)
            assert words in said, (name, changes, said)


def test_more_rows_than_a_grid_has_room_for(emulated):
    """The emulated grid has room for 640."""
    gpu = emulated(AMPERE)
    given = layer(1300, 32, 3)
    assert torch.equal(gpu.linear_w4a8(*given), ops.linear_w4a8.reference(*given))
    for dtype in checks.FLOATS:
        x = draw(1300, 32).to(dtype)
        expected = ops.linear_w4a16.reference(x, *given[2:])
        assert close(gpu.linear_w4a16(x, *given[2:]), expected, terms=32)


@pytest.fixture(scope="session")
def machine_code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file that has it, of all kernels, for each GPU they are compiled for."""
    if library.not_up_to_date() is None:
        return build.LIBRARY
    try:
        made = tmp_path_factory.mktemp("cuda") / "launch.o"
        build.nvcc()
    except UserError as error:
        pytest.skip(str(error))
    build.compile_kernels(made)
    return made


def test_the_registers_of_a_kernel_are_enough(machine_code, disassembled):
    found = re.findall(r"REG:(\d+) STACK:(\d+)", disassembled(machine_code, "--dump-resource-usage"))
    assert len(found) >= 4 * 13  # for each GPU
    assert max(int(registers) for registers, _ in found) <= REGISTERS
    assert {stack for _, stack in found} == {"0"}


def test_the_machine_code_is_what_is_meant(machine_code, disassembled):
    kernels: dict[tuple[str, str], str] = {}
    for part in re.split(r"(?=arch = )", disassembled(machine_code))[1:]:
        version = re.match(r"arch = (\w+)", part)[1]
        for kernel in part.split("Function : ")[1:]:
            kernels[version, kernel.split(maxsplit=1)[0]] = kernel
    assert {version for version, _ in kernels} == {"sm_80", "sm_90a", "sm_100", "sm_120"}
    for (version, name), text in kernels.items():
        assert not re.search(r"\b(LDL|STL)\b", text), f"{name} for {version} spills registers"
        if "6ampere" in name:
            wanted = "IMMA.16832.S8.S8" if "Int8" in name else "HMMA.16816.F32"
            assert wanted in text, f"{name} for {version}"
            assert ("LDGSTS" in text) == ("ELb1E" in name), f"{name} for {version}: copies that run on"
        if "6hopper" in name and version == "sm_90a":
            assert re.search(r"IGMMA\.64x\d+x32\.S8\.S8", text), name
    hoppers = [name for version, name in kernels if version == "sm_90a" and "6hopper" in name]
    assert len(hoppers) == 4


@pytest.mark.parametrize(
    ("cuda", "available", "version", "message"),
    [
        (None, False, None, "built without CUDA; pytorch.org"),
        ("13.0", False, None, "torch can use no GPU here"),
        ("13.0", True, (7, 5), "this GPU is of version 7.5; 8.0"),
        ("13.0", True, (12, 0), None),
    ],
)
def test_whether_there_is_a_gpu(monkeypatch, cuda, available, version, message):
    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: available)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: version)
    assert message in missing_gpu() if message else missing_gpu() is None


@pytest.mark.parametrize(
    ("listed", "expected"),
    [
        ("8.6", ["arch=compute_86,code=[sm_86]"]),
        ("8.0+PTX;9.0a", ["arch=compute_80,code=[sm_80,compute_80]", "arch=compute_90a,code=[sm_90a]"]),
        ("9.0 12.0", ["arch=compute_90a,code=[sm_90a]", "arch=compute_120,code=[sm_120]"]),
        ("7.5 8.6", ["arch=compute_86,code=[sm_86]"]),
    ],
)
def test_the_gpus_to_compile_for(monkeypatch, listed, expected):
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", listed)
    assert [option for option in build.targets() if option.startswith("arch=")] == expected
    assert ("-DNIBBLE_WITH_HOPPER" in build.targets()) == ("9.0" in listed)


@pytest.mark.parametrize(
    ("codes", "expected"),
    [
        ("sm_80 sm_90 sm_100 sm_120", "sm_80,compute_80 sm_90a sm_100 sm_120"),
        ("sm_80 sm_90", "sm_80,compute_80 sm_90a"),  # CUDA 12.0
    ],
)
def test_the_gpus_to_compile_for_are_those_that_nvcc_knows(monkeypatch, tmp_path, codes, expected):
    nvcc = tmp_path / "bin/nvcc"
    nvcc.parent.mkdir()
    nvcc.write_text(f"#!/bin/sh\necho {codes}\n")
    nvcc.chmod(0o755)
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    monkeypatch.delenv("TORCH_CUDA_ARCH_LIST", raising=False)
    assert re.findall(r"code=\[(.*?)\]", " ".join(build.targets())) == expected.split()


@pytest.mark.parametrize(
    ("listed", "message"),
    [("7.5", "names no GPU of Ampere"), ("hopper", "hopper is not a GPU architecture"), (";", "no GPU")],
)
def test_gpus_that_are_none(monkeypatch, listed, message):
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", listed)
    with pytest.raises(UserError, match=message):
        build.targets()


def test_a_driver_older_than_the_toolkit(monkeypatch, tmp_path):
    made = tmp_path / "library.so"
    made.write_bytes(b"..nibble sources 0123456789abcdef toolkit 13.0..")
    monkeypatch.setattr(library, "LIBRARY", made)
    assert library.older_driver(13000) is None
    assert library.older_driver(14020) is None
    assert "the driver supports CUDA up to 12.4; install a newer driver" in library.older_driver(12040)


def test_a_machine_without_nvcc(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(UserError, match="CUDA_HOME="):
        build.nvcc()


def test_a_compiler_that_fails(monkeypatch, tmp_path):
    broken = tmp_path / "bin" / "nvcc"
    broken.parent.mkdir()
    broken.write_text("#!/bin/sh\necho 'nvcc error: unsupported GNU version' >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    with pytest.raises(UserError, match=r"unsupported GNU version; CUDA 12 or later"):
        build.compile_kernels(tmp_path / "launch.o")


@pytest.mark.skipif(missing_gpu() is None, reason="there is a GPU")
@pytest.mark.parametrize("name", ["cuda", "triton"])
def test_a_machine_without_a_gpu(monkeypatch, name):
    monkeypatch.setenv(implementations.VARIABLE, name)
    with pytest.raises(UserError, match=f"NIBBLE_KERNELS={name}: .*(no GPU|without CUDA|Ampere)"):
        implementations.load()
    assert implementations.used_by("linear_w4a8", "cuda") == implementations.REFERENCE


@pytest.mark.skipif(library.not_up_to_date() is not None, reason=f"the library: {library.not_up_to_date()}")
def test_the_library_loads_without_a_gpu():
    torch.ops.load_library(build.LIBRARY)
    for name in library.OPERATORS:
        assert torch._C._dispatch_has_kernel_for_dispatch_key(f"nibble::{name}", "CUDA")


gpu = pytest.mark.gpu


@gpu
@pytest.mark.parametrize("rows", [0, 1, 17, 256, 1000])
@pytest.mark.parametrize(("terms", "outputs"), [(512, 512), (67, 129), (2048, 512), (1001, 1)])
def test_on_a_gpu(rows, terms, outputs):
    given = layer(rows, terms, outputs)
    there = [None if tensor is None else tensor.cuda() for tensor in given]
    torch.full((4 * rows * outputs // 4 + 1,), float("nan"), device="cuda")  # what is not written shows
    assert torch.equal(ops.linear_w4a8(*there).cpu(), ops.linear_w4a8.reference(*given))
    weight = codes(outputs, terms)
    found = ops.linear_w8a8(there[0], there[1], weight.cuda(), *there[3:])
    assert torch.equal(found.cpu(), ops.linear_w8a8.reference(given[0], given[1], weight, *given[3:]))
    for dtype in checks.FLOATS:
        x = draw(rows, terms).to(dtype)
        found = ops.linear_w4a16(x.cuda(), *there[2:]).cpu()
        assert close(found, ops.linear_w4a16.reference(x, *given[2:]), terms)
        if dtype == torch.float32:
            for mine, its in zip(ops.quantize_rows(x.cuda()), ops.quantize_rows.reference(x), strict=True):
                assert torch.equal(mine.cpu(), its)


@gpu
def test_the_contract_with_torch_on_a_gpu():
    given = [tensor.cuda() for tensor in layer(3, 10, 6)]
    for name, inputs in (
        ("linear_w4a8", given),
        ("linear_w4a16", [draw(3, 10).cuda().bfloat16(), *given[2:]]),
        ("linear_w8a8", [*given[:2], codes(6, 10).cuda(), *given[3:]]),
        ("quantize_rows", [draw(3, 10).cuda()]),
        ("norm_quantize_rows", [draw(3, 10).cuda(), draw(10).cuda(), draw(10).cuda(), 1e-5]),
    ):
        torch.library.opcheck(getattr(torch.ops.nibble, name).default, tuple(inputs))
    with pytest.raises(RuntimeError, match="tensors are on several devices"):
        ops.linear_w4a8(*given[:2], given[2].cpu(), *given[3:])


@gpu
def test_the_stream_is_torchs():
    given = [tensor.cuda() for tensor in layer(17, 512, 512)]
    expected = ops.linear_w4a8(*given)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):  # a launch on another stream cannot be captured
        found = ops.linear_w4a8(*given)
    graph.replay()
    assert torch.equal(found, expected)
