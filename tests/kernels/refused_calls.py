"""Good calls of every operator, and what makes each a bad one: the same for all implementations."""

from typing import Any

import torch
from torch import Tensor

from nibble.kernels import ops
from nibble.kernels.nibbles import pack_rows


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def codes(*shape: int, bits: int = 8, seed: int = 0) -> Tensor:
    half = 2 ** (bits - 1)
    return torch.randint(-half, half, shape, dtype=torch.int8, generator=torch.Generator().manual_seed(seed))


PACKED = pack_rows(codes(4, 6, bits=4))
CONVOLVED = {
    "codes": codes(2, 4, 5, 9),
    "scale": draw(2),
    "weight": codes(6, 4, 3, 3),
    "weight_scale": draw(6),
    "bias": draw(6),
}
STEPS = {"stride": [2, 1], "padding": [1, 0], "dilation": [1, 2], "groups": 1}
# By the names of the schemas, in their order.
GOOD: dict[str, dict[str, Any]] = {
    "int_matmul": {"x": codes(2, 6), "weight": codes(4, 6)},
    "int_conv2d": {"x": codes(2, 4, 5, 9), "weight": codes(6, 4, 3, 3), **STEPS},
    "quantize_rows": {"x": draw(2, 6)},
    "silu_quantize_rows": {"x": draw(2, 6)},
    "norm_quantize_rows": {"x": draw(2, 6), "weight": draw(6), "bias": draw(6), "eps": 1e-5},
    "linear_w8a8": {
        "codes": codes(2, 6),
        "scale": draw(2, 1),
        "weight": codes(4, 6),
        "weight_scale": draw(4),
        "bias": draw(4),
    },
    "linear_w4a8": {
        "codes": codes(2, 6),
        "scale": draw(2, 1),
        "packed": PACKED,
        "weight_scale": draw(4),
        "bias": draw(4),
    },
    "linear_w4a16": {"x": draw(2, 6), "packed": PACKED, "weight_scale": draw(4), "bias": draw(4)},
    "conv2d_w8a8": {**CONVOLVED, **STEPS},
    "conv2d_relu_quantize": {**CONVOLVED, "stride": [2, 2], "heights": torch.tensor([2, 1])},
    "relative_attention": {
        "query": draw(2, 5, 8),
        "key": draw(2, 6, 8),
        "value": draw(2, 6, 8),
        "positions": draw(11, 8),
        "content_bias": draw(8),
        "position_bias": draw(8),
        "visible": torch.ones(2, 6, dtype=torch.bool),
        "heads": 2,
    },
}
LONG = torch.zeros(1, dtype=torch.int8)  # expanded: huge, and takes no memory
_TWO = "give two numbers, of height and width,"


def _steps(operator: str, tensor: str) -> list[tuple[str, dict[str, Any], str]]:
    """What is wrong with the steps, the groups and the filters of a convolution."""
    bad: list[tuple[str, dict[str, Any], str]] = []
    names = ("stride",) if operator == "conv2d_relu_quantize" else ("stride", "padding", "dilation")
    for name in names:
        least = int(name != "padding")
        values = [[], [1], [1, 1, 1], [1, least - 1], [least - 1, 1], [-1, 1], [1, -7], [2**15, 1], [1, 2**62]]
        bad += [
            (operator, {name: value}, f"{name} is {value}; {_TWO} {least} to 32767")
            for value in (*values, [-(2**63), 1])
        ]
    if operator != "conv2d_relu_quantize":
        for groups in (0, -1, 3, 2, 2**62):
            bad.append((operator, {"groups": groups}, f"(6, 4, 3, 3) with {groups} groups do not fit"))
        larger = "filters of (6, 4, 3, 3) are larger than an input of (2, 4, 5, 9) with its padding"
        bad += [(operator, {"dilation": value}, larger) for value in ([4, 1], [1, 5], [32767, 32767])]
    for shape in ((6, 4, 3, 10), (6, 4, 8, 3), (6, 4, 500, 1)):
        bad.append(
            (operator, {"weight": codes(*shape)}, f"filters of {shape} are larger than an input of (2, 4, 5, 9)")
        )
    for shape in ((0, 4, 3, 3), (6, 4, 0, 3), (6, 4, 3, 0)):
        floats = {} if operator == "int_conv2d" else {"weight_scale": draw(shape[0]), "bias": None}
        bad.append((operator, {"weight": codes(*shape), **floats}, f"filters of {shape} are empty"))
    bad += [
        (operator, {tensor: codes(2, 0, 5, 9), "weight": codes(6, 0, 3, 3)}, "filters of (6, 0, 3, 3) are empty"),
        (operator, {tensor: codes(2, 3, 5, 9)}, "sizes (2, 3, 5, 9) and (6, 4, 3, 3) with 1 groups do not fit"),
        (operator, {tensor: codes(4, 5, 9)}, "sizes (4, 5, 9) and (6, 4, 3, 3) with 1 groups do not fit"),
        (operator, {"weight": codes(6, 4, 3)}, "sizes (2, 4, 5, 9) and (6, 4, 3) with 1 groups do not fit"),
        (operator, {tensor: draw(2, 4, 5, 9)}, "types torch.float32 and torch.int8; both must be torch.int8"),
        (operator, {"weight": PACKED}, "types torch.int8 and torch.uint8; both must be torch.int8"),
        (operator, {"weight": LONG.expand(6, 4, 2**15, 1)}, "K = 131072; give at most 131071, or int32 may overflow"),
    ]
    return bad


def _floats(operator: str, shapes: dict[str, tuple[int, ...]]) -> list[tuple[str, dict[str, Any], str]]:
    """What is wrong with scales and the like."""
    bad: list[tuple[str, dict[str, Any], str]] = []
    for name, shape in shapes.items():
        wrong = [draw(*shape).double(), draw(*shape).half(), torch.ones(shape, dtype=torch.int32)]
        wrong += [draw(*shape).unsqueeze(0), draw(shape[0] + 1, *shape[1:]), draw(0), torch.tensor(1.0)]
        for tensor in wrong:
            told = f"{name} is {tensor.dtype} {tuple(tensor.shape)}; give torch.float32 {shape}"
            bad.append((operator, {name: tensor}, told))
    return bad


OTHER_TYPES = (torch.float64, torch.bool, torch.int16, torch.int32, torch.int64, torch.uint16, torch.complex64)
SIZES = "give (M, K) and (N, K)"
PACKED_SIZES = "give (M, K) and (N, ceil(K / 2))"
BAD: list[tuple[str, dict[str, Any], str]] = [
    *_steps("int_conv2d", "x"),
    *_steps("conv2d_w8a8", "codes"),
    *_steps("conv2d_relu_quantize", "codes"),
    *_floats("conv2d_w8a8", {"scale": (2,), "weight_scale": (6,), "bias": (6,)}),
    *_floats("conv2d_relu_quantize", {"scale": (2,), "weight_scale": (6,), "bias": (6,)}),
    *_floats("linear_w8a8", {"scale": (2, 1), "weight_scale": (4,), "bias": (4,)}),
    *_floats("linear_w4a8", {"scale": (2, 1), "weight_scale": (4,), "bias": (4,)}),
    *_floats("linear_w4a16", {"weight_scale": (4,), "bias": (4,)}),
    *_floats("norm_quantize_rows", {"weight": (6,), "bias": (6,)}),
    *_floats("relative_attention", {"value": (2, 6, 8), "positions": (11, 8), "content_bias": (8,)}),
    *_floats("relative_attention", {"position_bias": (8,)}),
    *(
        (name, {"x": draw(2, 6).to(dtype)}, f"type {dtype}; give float16, bfloat16 or float32")
        for name in ("quantize_rows", "silu_quantize_rows", "norm_quantize_rows", "linear_w4a16")
        for dtype in (torch.int8, *OTHER_TYPES)
    ),
    *(
        (name, {"x": torch.tensor(1.0)}, "a scalar has no rows; give (..., K)")
        for name in ("quantize_rows", "silu_quantize_rows", "norm_quantize_rows")
    ),
    *(
        (name, {"codes": codes(2, 6).to(dtype)}, f"codes are {dtype}, not torch.int8")
        for name in ("linear_w8a8", "linear_w4a8")
        for dtype in OTHER_TYPES
    ),
    ("int_matmul", {"x": PACKED}, "types torch.uint8 and torch.int8; both must be torch.int8"),
    ("int_matmul", {"weight": draw(4, 6)}, "types torch.int8 and torch.float32; both must be torch.int8"),
    ("int_matmul", {"x": codes(2, 5)}, f"sizes (2, 5) and (4, 6); {SIZES}"),
    ("int_matmul", {"x": codes(6)}, f"sizes (6,) and (4, 6); {SIZES}"),
    ("int_matmul", {"weight": codes(0)}, f"sizes (2, 6) and (0,); {SIZES}"),
    ("int_matmul", {"x": LONG.expand(2, 2**17), "weight": LONG.expand(4, 2**17)}, "K = 131072; give at most 131071"),
    ("linear_w8a8", {"weight": PACKED}, "weight is torch.uint8, not torch.int8"),
    ("linear_w8a8", {"dtype": torch.int32}, "ask for a result in float16, bfloat16 or float32"),
    ("conv2d_w8a8", {"dtype": torch.float64}, "ask for a result in float16, bfloat16 or float32"),
    ("linear_w8a8", {"weight": codes(4, 5)}, f"sizes (2, 6) and (4, 5); {SIZES}"),
    ("linear_w8a8", {"codes": codes(2, 3, 2)}, f"sizes (2, 3, 2) and (4, 6); {SIZES}"),
    ("linear_w8a8", {"codes": LONG.expand(2, 2**40), "weight": LONG.expand(4, 2**40)}, f"K = {2**40}; give at most"),
    ("linear_w4a8", {"packed": codes(4, 3)}, "packed is torch.int8, not torch.uint8"),
    ("linear_w4a8", {"packed": PACKED[:, :2]}, f"sizes (2, 6) and (4, 2); {PACKED_SIZES}"),
    ("linear_w4a8", {"packed": PACKED[0]}, f"sizes (2, 6) and (3,); {PACKED_SIZES}"),
    (
        "linear_w4a8",
        {"codes": LONG.expand(2, 2**17), "packed": LONG.to(torch.uint8).expand(4, 2**16)},
        "K = 131072; give at most 131071",
    ),
    ("linear_w4a16", {"packed": codes(4, 3)}, "packed is torch.int8, not torch.uint8"),
    ("linear_w4a16", {"x": draw(2, 8)}, f"sizes (2, 8) and (4, 3); {PACKED_SIZES}"),
    ("linear_w4a16", {"x": draw(6)}, f"sizes (6,) and (4, 3); {PACKED_SIZES}"),
    ("conv2d_relu_quantize", {"heights": torch.tensor([2])}, "heights is torch.int64 (1,); give torch.int64 (2,)"),
    ("conv2d_relu_quantize", {"heights": torch.tensor(2)}, "heights is torch.int64 (); give torch.int64 (2,)"),
    ("conv2d_relu_quantize", {"heights": draw(2)}, "heights is torch.float32 (2,); give torch.int64 (2,)"),
    ("relative_attention", {"query": draw(5, 8)}, "sizes (5, 8) and (2, 6, 8); give (B, T, D) and (B, S, D)"),
    ("relative_attention", {"key": draw(2, 6)}, "sizes (2, 5, 8) and (2, 6); give (B, T, D) and (B, S, D)"),
    ("relative_attention", {"key": draw(3, 6, 8)}, "key is torch.float32 (3, 6, 8); give torch.float32 (2, 6, 8)"),
    ("relative_attention", {"query": draw(2, 5, 8).half()}, "query is torch.float16 (2, 5, 8); give torch.float32"),
    ("relative_attention", {"query": draw(2, 7, 8)}, "7 queries of 6 frames; give at most one a frame"),
    ("relative_attention", {"visible": draw(2, 6)}, "visible is torch.float32 (2, 6); give torch.bool (2, 6)"),
    ("relative_attention", {"visible": torch.ones(2, 7) > 0}, "visible is torch.bool (2, 7); give torch.bool (2, 6)"),
    *(("relative_attention", {"heads": n}, f"{n} heads do not divide D = 8") for n in (0, -1, -2, 3, 16, 2**62)),
    ("relative_attention", {"query": draw(2, 5, 0), "key": draw(2, 6, 0)}, "2 heads do not divide D = 0"),
]
# A tensor on another device than the others: "meta" is one without memory.
BAD += [
    (operator, {name: value.to("meta")}, "tensors are on several devices")
    for operator, inputs in GOOD.items()
    for name, value in inputs.items()
    if isinstance(value, Tensor) and sum(isinstance(other, Tensor) for other in inputs.values()) > 1
]


def of_reference(operator: str) -> Any:
    """The function in plain torch."""
    return ops.OPERATORS[operator].reference


def refusal(function: Any, operator: str, changes: dict[str, Any]) -> str:
    """What an implementation says of a good call that is changed so; "" if it takes it."""
    try:
        function(*{**GOOD[operator], **changes}.values())
    except RuntimeError as error:
        return str(error).splitlines()[0]
    return ""
