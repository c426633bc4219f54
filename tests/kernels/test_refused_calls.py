"""Every implementation refuses the same calls, in the same words, and takes the same others."""

import random
from importlib.util import find_spec
from typing import Any

import pytest
import torch
from refused_calls import BAD, GOOD, of_reference, refusal
from torch import Tensor

from nibble.kernels import ops
from nibble.kernels.cpu import library
from nibble.kernels.triton import library as triton_library

CALLS = 200  # of each operator and path, unless --fuzz-cases says otherwise


def implementations(operator: str) -> dict[str, Any]:
    """Those that run on this machine; the compiled ones for GPUs have their turn in test_cuda_kernels.py."""
    found = {"reference": of_reference(operator), "dispatched": getattr(ops, operator)}
    if find_spec("triton") and operator in triton_library.OPERATORS and not torch.cuda.is_available():
        found["triton"] = triton_library.functions()[operator]
    return found


def on_meta(changes: dict[str, Any]) -> dict[str, Any]:
    return {name: value.to("meta") if isinstance(value, Tensor) else value for name, value in changes.items()}


@pytest.mark.parametrize("operator", GOOD)
def test_bad_calls_are_refused_alike(operator):
    cases = [(changes, f"{operator}: ", words) for name, changes, words in BAD if name == operator]
    assert cases
    for changes, begin, words in cases:
        for name, function in implementations(operator).items():
            said = refusal(function, operator, changes)
            assert said.startswith(begin), (name, changes, said)
            assert words in said, (name, changes, said)


@pytest.mark.parametrize("operator", GOOD)
def test_shapes_are_refused_alike(operator):
    """Without memory, as `torch.compile` asks."""
    function = getattr(ops, operator)
    good = on_meta(GOOD[operator])
    for name, changes, words in BAD:
        if name == operator and "devices" not in words:
            said = refusal(function, operator, {**good, **on_meta(changes)})
            assert words in said, (changes, said)


@pytest.mark.parametrize("operator", GOOD)
def test_good_calls_are_taken(operator):
    for name, function in implementations(operator).items():
        assert refusal(function, operator, {}) == "", name


# ---- random calls ----


class Draw:
    """Small random arguments, mostly of one kind and now and then of another."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.torch = torch.Generator().manual_seed(seed)

    def size(self) -> int:
        return self.random.choice((0, 1, 1, 2, 3, 4, 5, 8, 17, 33))

    def of(self, *sizes: int) -> tuple[int, ...]:
        """These sizes; seldom with one changed, or of another rank."""
        found = list(sizes)
        if found and self.random.random() < 0.03:
            found[self.random.randrange(len(found))] = self.size()
        if self.random.random() < 0.01:
            found = found[1:] if self.random.random() < 0.5 else [1, *found]
        return tuple(found)

    def codes(self, *sizes: int, bits: int = 8) -> Tensor:
        half = 2 ** (bits - 1)
        return self.changed(torch.randint(-half, half, self.of(*sizes), dtype=torch.int8, generator=self.torch))

    def packed(self, outputs: int, terms: int) -> Tensor:
        shape = self.of(outputs, (terms + 1) // 2)
        return self.changed(torch.randint(0, 256, shape, dtype=torch.uint8, generator=self.torch))

    def floats(self, *sizes: int) -> Tensor:
        return self.changed(torch.randn(self.of(*sizes), generator=self.torch))

    def changed(self, x: Tensor) -> Tensor:
        """x, seldom of another type; often of another layout."""
        if self.random.random() < 0.01:
            x = x.to(self.random.choice((torch.float16, torch.float64, torch.int8, torch.uint8, torch.int64)))
        layout = self.random.random()
        if layout < 0.2 and x.dim() > 1:
            return x.transpose(-1, -2).contiguous().transpose(-1, -2)
        if layout < 0.4 and x.dim() > 0:
            return torch.stack((x, x), -1)[..., 0]
        return x

    def steps(self, least: int) -> list[int]:
        """Two numbers; one time in ten more, fewer, or out of range."""
        count = 2 if self.random.random() < 0.95 else self.random.choice((0, 1, 3))
        return [
            self.random.randint(least, 3) if self.random.random() < 0.97 else self.random.choice((-1, 0, 7, 2**40))
            for _ in range(count)
        ]


def call(operator: str, seed: int) -> list[Any]:
    """Random arguments of an operator."""
    d = Draw(seed)
    m, k, n = d.size(), d.size(), d.size()
    bias = d.floats(n) if d.random.random() < 0.5 else None
    match operator:
        case "int_matmul":
            return [d.codes(m, k), d.codes(n, k)]
        case "quantize_rows" | "silu_quantize_rows":
            return [d.floats(m, k)]
        case "norm_quantize_rows":
            return [d.floats(m, k), d.floats(k), d.floats(k), 1e-5]
        case "linear_w8a8":
            return [d.codes(m, k), d.floats(m, 1), d.codes(n, k), d.floats(n), bias]
        case "linear_w4a8":
            return [d.codes(m, k), d.floats(m, 1), d.packed(n, k), d.floats(n), bias]
        case "linear_w4a16":
            return [d.floats(m, k), d.packed(n, k), d.floats(n), bias]
        case "relative_attention":
            b, t, heads = d.random.randint(0, 3), d.size(), d.random.randint(0, 3)
            s, width = t + d.random.choice((0, 0, 1, 5)), max(heads, 1) * d.random.choice((1, 2, 5, 16))
            visible = d.changed(torch.ones(d.of(b, s), dtype=torch.bool))
            floats = [d.floats(b, t, width), d.floats(b, s, width), d.floats(b, s, width), d.floats(s + t, width)]
            return [*floats, d.floats(width), d.floats(width), visible, heads]
    b, groups = d.random.randint(0, 3), d.random.choice((1, 1, 2, 4))
    h, w = (max(d.size() - 1, 0) + d.random.choice((0, 2, 2, 2)) for _ in range(2))
    c, n, kh, kw = (
        groups * d.random.randint(1, 5),
        groups * d.random.randint(1, 3),
        *d.random.choices((1, 1, 2, 3, 4), k=2),
    )
    if d.random.random() < 0.3:
        groups = c = n = d.random.choice((2, 5, 16, 19))
    if operator == "conv2d_relu_quantize":
        groups = 1
    bias = d.floats(n) if d.random.random() < 0.5 else None
    steps = [d.steps(1), d.steps(0), d.steps(1), groups if d.random.random() < 0.97 else d.random.choice((0, -1, 3))]
    x, weight = d.codes(b, c, h, w), d.codes(n, c // groups, kh, kw)
    if operator == "int_conv2d":
        return [x, weight, *steps]
    floats = [x, d.floats(b).abs(), weight, d.floats(n), bias]
    if operator == "conv2d_w8a8":
        return [*floats, *steps]
    return [*floats, steps[0], torch.randint(-2, 20, d.of(b), generator=d.torch)]


def outcome(function: Any, arguments: list[Any]) -> str | tuple[Tensor, ...]:
    """What a call returns, or the first line of what it says."""
    try:
        found = function(*arguments)
    except RuntimeError as error:
        return str(error).splitlines()[0]
    return (found,) if isinstance(found, Tensor) else tuple(found)


@pytest.mark.skipif(not library.paths(), reason=f"the CPU kernels are not loaded: {library.missing()}")
@pytest.mark.parametrize("path", library.paths())
@pytest.mark.parametrize("operator", library.OPERATORS)
def test_random_calls(operator, path, pytestconfig):
    count, refused = pytestconfig.getoption("fuzz_cases") or CALLS, 0
    with library.forced(path):
        for seed in range(count):
            arguments = call(operator, seed)
            expected = outcome(of_reference(operator), arguments)
            found = outcome(getattr(ops, operator), arguments)
            if isinstance(expected, str):
                assert (found, seed) == (expected, seed)
                refused += 1
                continue
            assert not isinstance(found, str), (seed, found)
            for one, other in zip(found, expected, strict=True):
                assert (seed, one.dtype, one.shape) == (seed, other.dtype, other.shape)
                # A step in floats before a code may be rounded otherwise.
                near = {"atol": 1, "rtol": 0} if one.dtype == torch.int8 else {"atol": 1e-5, "rtol": 1e-4}
                torch.testing.assert_close(one, other, equal_nan=True, **near)
    assert 0 < refused < 0.8 * count
