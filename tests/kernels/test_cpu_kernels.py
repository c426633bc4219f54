"""The compiled CPU kernels: each path against the reference, bit for bit, and how they are found."""

import itertools
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from nibble.errors import UserError
from nibble.kernels import implementations, ops
from nibble.kernels.cpu import build, library
from nibble.kernels.nibbles import pack_rows

ROOT = Path(__file__).parents[2]
PATHS = library.paths()
needs_library = pytest.mark.skipif(not PATHS, reason=f"the CPU kernels are not loaded: {library.missing()}")
every_path = pytest.mark.parametrize("path", PATHS)
ROWS = st.one_of(st.integers(0, 24), st.sampled_from([64, 241, 1000]))
TERMS = st.one_of(st.integers(0, 24), st.integers(25, 300))
OUTPUTS = st.one_of(st.integers(0, 24), st.integers(25, 140))


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def codes(*shape: int, bits: int = 8, seed: int = 0) -> Tensor:
    half = 2 ** (bits - 1)
    return torch.randint(-half, half, shape, dtype=torch.int8, generator=torch.Generator().manual_seed(seed))


def poison(*sizes_bytes: int) -> None:
    """Leave memory of these sizes to the allocator that is full of NaN, so that what is not written shows."""
    for size_bytes in sizes_bytes:
        torch.full((size_bytes // 4 + 1,), float("nan"))


@needs_library
@every_path
@settings(deadline=None, max_examples=60)
@given(rows=ROWS, terms=TERMS, outputs=OUTPUTS, seed=st.integers(0, 1000), bias=st.booleans())
@example(rows=0, terms=5, outputs=5, seed=0, bias=True)
@example(rows=1, terms=0, outputs=5, seed=0, bias=True)
@example(rows=1, terms=1, outputs=1, seed=0, bias=False)
@example(rows=17, terms=2049, outputs=65, seed=0, bias=True)
@example(rows=1000, terms=127, outputs=33, seed=0, bias=True)
def test_products_are_those_of_the_reference(path, rows, terms, outputs, seed, bias):
    x, scale, weight_scale = codes(rows, terms, seed=seed), draw(rows, 1, seed=seed), draw(outputs, seed=seed)
    shift = draw(outputs, seed=seed + 1) if bias else None
    small, large = codes(outputs, terms, bits=4, seed=seed), codes(outputs, terms, seed=seed)
    packed = pack_rows(small)
    if terms % 2:
        packed[:, -1] |= 0xA0  # the last half byte of an odd row means nothing
    poison(4 * rows * outputs, rows * (terms + 256))
    with library.forced(path):
        found = (
            ops.int_matmul(x, large),
            ops.linear_w8a8(x, scale, large, weight_scale, shift),
            ops.linear_w4a8(x, scale, packed, weight_scale, shift),
        )
    assert torch.equal(found[0], ops.int_matmul.reference(x, large))
    assert torch.equal(found[1], ops.linear_w8a8.reference(x, scale, large, weight_scale, shift))
    assert torch.equal(found[2], ops.linear_w4a8.reference(x, scale, packed, weight_scale, shift))


@needs_library
@every_path
@pytest.mark.parametrize("rows", [3, 40])
def test_products_at_the_extremes(path, rows):
    """The largest sums of both signs, beyond what 16 bits and a float32 hold."""
    for x_code, code in ((-128, -128), (-128, 127), (127, -128)):
        x = torch.full((rows, 70_001), x_code, dtype=torch.int8)
        weight = torch.full((5, 70_001), code, dtype=torch.int8)
        with library.forced(path):
            assert (ops.int_matmul(x, weight) == x_code * code * 70_001).all()


@needs_library
@every_path
@settings(deadline=None, max_examples=60)
@given(rows=st.integers(0, 40), terms=TERMS, seed=st.integers(0, 1000))
def test_rows_are_quantized_as_by_the_reference(path, rows, terms, seed):
    x = draw(rows, terms, seed=seed) * 10 ** (8 * draw(rows, 1, seed=seed + 1))
    x[::5] = 0
    # Halves of a step, where rounding decides.
    x[1::5] = torch.randint(-254, 255, x[1::5].shape).div(2)
    poison(rows * terms, 4 * rows)
    with library.forced(path):
        found = ops.quantize_rows(x)
    for each, expected in zip(found, ops.quantize_rows.reference(x), strict=True):
        assert torch.equal(each, expected)


def closest_calls() -> Tensor:
    """(largest, x), for all x and steps (up to powers of two) whose quotient is within 2^-44 of where its rounding to
    float32 decides a code: halfway between a half, as 2.5, and a float next to it.
    """
    rows = []
    for half, way in itertools.product((code + 0.5 for code in range(127)), (-math.inf, math.inf)):
        next_to_it = float(np.nextafter(np.float32(half), np.float32(way)))
        mantissa, exponent = math.frexp((half + next_to_it) / 2)
        odd = int(mantissa * 2**25)
        for shift, distance in itertools.product((24, 25), (*range(-8, 0), *range(1, 9))):
            # Mantissas of 24 bits, for which x 2^shift - step odd = distance.
            step = -distance * pow(odd, -1, 2**shift) % 2**shift
            x = (step * odd + distance) >> shift
            if not (2**23 <= step < 2**24 and 2**23 <= x < 2**24 and (x >= step) == (shift == 24)):
                continue
            about = np.float32(127 * step)
            largest = [about, np.nextafter(about, np.float32(0)), np.nextafter(about, np.float32(math.inf))]
            rows += [(float(m), math.ldexp(x, exponent + shift - 25)) for m in largest if m / np.float32(127) == step]
    return torch.tensor(rows)


@needs_library
@every_path
def test_the_closest_calls_of_rounding(path):
    rows = closest_calls()
    assert len(rows) > 1000
    for power in (0, -90, -123, -125):
        x = rows * 2.0**power
        with library.forced(path):
            found = ops.quantize_rows(x)[0]
        assert torch.equal(found, ops.quantize_rows.reference(x)[0])


@needs_library
@every_path
@pytest.mark.parametrize("bad", [float("nan"), -float("nan"), float("inf"), -float("inf")])
def test_a_bad_row_has_a_bad_scale(path, bad):
    for place in range(37):
        x = draw(2, 37)
        x[1, place] = bad
        with library.forced(path):
            scale = ops.quantize_rows(x)[1]
        assert scale.isfinite().flatten().tolist() == [True, False]


@needs_library
def test_threads_share_a_product():
    x, weight = codes(1000, 520), codes(200, 520, bits=4)
    scale, weight_scale = draw(1000, 1), draw(200)
    expected = ops.linear_w8a8.reference(x, scale, weight, weight_scale, None)
    torch.set_num_threads(2)
    assert torch.equal(ops.linear_w8a8(x, scale, weight, weight_scale, None), expected)
    assert torch.equal(ops.linear_w4a8(x, scale, pack_rows(weight), weight_scale, None), expected)
    floats = draw(1000, 520)
    for each, of_one in zip(ops.quantize_rows(floats), ops.quantize_rows.reference(floats), strict=True):
        assert torch.equal(each, of_one)


@needs_library
def test_a_path_that_cannot_run_is_refused():
    with pytest.raises(UserError, match=r"the path mmx cannot run here; give one of .*portable"), library.forced("mmx"):
        pass


def info(**environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "nibble.info"]
    return subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=False)


def test_info_lists_what_each_operator_uses():
    done = info(NIBBLE_KERNELS="reference", OMP_WAIT_POLICY="PASSIVE", OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stderr
    assert "threads: 1, waiting with " in done.stdout
    assert "OMP_WAIT_POLICY=PASSIVE" in done.stdout
    for operator in ops.OPERATORS:
        assert any(operator in line and "reference" in line for line in done.stdout.splitlines())


@pytest.mark.parametrize("words", ["-m nibble.info", "train.py experiment=demo", "evaluate.py checkpoint=runs"])
def test_a_wrong_choice_is_an_error(words, tmp_path):
    command = [sys.executable, *(str(ROOT / word) if word.endswith(".py") else word for word in words.split())]
    environment = {**os.environ, "NIBBLE_KERNELS": "gpu"}
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "error: NIBBLE_KERNELS=gpu is not an implementation; give one of reference, cpu, cuda, triton, "
        "or leave it out for the fastest that is built\n"
    )


def test_a_choice_that_is_not_built_is_an_error(monkeypatch, tmp_path):
    monkeypatch.setattr(library, "LIBRARY", tmp_path / "none.so")
    monkeypatch.setattr(library, "_loaded", [])
    monkeypatch.setenv(implementations.VARIABLE, "cpu")
    with pytest.raises(
        UserError, match=r"NIBBLE_KERNELS=cpu: CPU kernels: (not built; make kernels|no C\+\+ compiler)"
    ):
        implementations.load()


def test_a_library_of_other_sources_is_warned_of_and_not_used(monkeypatch, tmp_path):
    stale = tmp_path / "libnibble_cpu.so"
    stale.write_bytes(b"... nibble sources 0123456789abcdef ...")
    monkeypatch.setattr(library, "LIBRARY", stale)
    monkeypatch.setattr(library, "_loaded", [])
    monkeypatch.delenv(implementations.VARIABLE, raising=False)
    with pytest.warns(RuntimeWarning, match="built from other sources; make kernels; the reference runs in its place"):
        implementations.load()
    assert implementations.used_by("linear_w8a8", "cpu") == "reference"


@pytest.mark.parametrize(
    ("cxx", "message"),
    [("no-such-compiler", "no C\\+\\+ compiler no-such-compiler; install"), ("false", "false failed: .*g\\+\\+ 12")],
)
def test_building_says_what_is_missing(monkeypatch, tmp_path, cxx, message):
    monkeypatch.setenv("CXX", cxx)
    monkeypatch.setattr(build, "LIBRARY", tmp_path / "lib.so")
    with pytest.raises(UserError, match=message):
        build.build()
    assert not list(tmp_path.iterdir())
