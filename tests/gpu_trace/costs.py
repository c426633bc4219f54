"""What a call costs on an H200, by a model: a launch takes as long as its memory traffic or its products, the longer.

Launches: a call is one launch, unless it only makes a view, memory or a number on the host. `_foreach` operators work
on many tensors in one launch, as many as `multi_tensor_apply` takes (torch's ATen/native/cuda/MultiTensorApply.cuh).
A backward convolution is one launch for each gradient. Bytes: each tensor is read or written once; elements that are
only repeated (stride 0) count once. A Triton kernel of fewer programs than there are multiprocessors has only theirs.
What a host needs to launch a kernel is left out, as are the caches of the GPU and the network between GPUs.
"""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

if TYPE_CHECKING:
    from launches import Launch

BYTES_A_SECOND = 0.85 * 4.3e12
PRODUCTS_A_SECOND = {torch.int8: 900e12, torch.bfloat16: 550e12, torch.float16: 550e12, torch.float32: 40e12}
MULTIPROCESSORS = 132
BYTES_A_SECOND_OF_ONE = 0.85 * 64 * 1.755e9  # of a multiprocessor: 64 bytes a cycle
TF32_A_SECOND = 275e12  # half of bfloat16
_FLOAT64_A_SECOND = 30e12

_NO_LAUNCH = {
    "empty", "empty_like", "new_empty", "new_empty_strided", "empty_strided", "detach", "detach_", "alias", "resize_",
    "lift_fresh", "set_", "is_same_size", "_unsafe_view", "_reshape_alias", "record_stream", "is_pinned", "_pin_memory",
}  # fmt: skip
_PRODUCTS = {
    "mm": (0, 1),
    "addmm": (1, 2),
    "bmm": (0, 1),
    "baddbmm": (1, 2),
    "_int_mm": (0, 1),
    "_addmm_activation": (1, 2),
}
_BY_RESULT = {"gather", "index", "index_select", "embedding", "slice_scatter", "select_scatter"}
# multi_tensor_apply: tensors in one launch by how many lists there are; blocks in one launch; elements of a block
_TENSORS_A_LAUNCH = {1: 110, 2: 64, 3: 48, 4: 36, 5: 30}
_BLOCKS_A_LAUNCH, _ELEMENTS_A_BLOCK = 320, 65536


class Cost(NamedTuple):
    """Of one call."""

    bytes: int
    products: float = 0.0  # multiplications and additions
    a_second: float = PRODUCTS_A_SECOND[torch.bfloat16]
    programs: int = MULTIPROCESSORS  # that share the work; fewer leave multiprocessors idle

    @property
    def seconds(self) -> float:
        bytes_a_second = min(BYTES_A_SECOND, self.programs * BYTES_A_SECOND_OF_ONE)
        busy = min(1.0, self.programs / MULTIPROCESSORS)
        return max(self.bytes / bytes_a_second, self.products / (busy * self.a_second))


def held_bytes(x: Tensor) -> int:
    """Bytes that a tensor occupies; repeated elements once."""
    return math.prod(size for size, stride in zip(x.shape, x.stride(), strict=True) if stride) * x.element_size()


def launched(func: Any, name: str, tensors: list[Tensor], outs: list[Tensor], args: Any) -> int:
    """How many kernels a call launches."""
    if name in _NO_LAUNCH or func.is_view or name.startswith("sym_"):
        return 0
    if name.startswith(("_foreach_", "_fused_")):
        lists = [part for part in args if isinstance(part, list | tuple) and part and isinstance(part[0], Tensor)]
        depth = min(len(lists) + (not name.endswith("_")), 5)
        blocks = sum(math.ceil(x.numel() / _ELEMENTS_A_BLOCK) for x in lists[0])
        return max(math.ceil(len(lists[0]) / _TENSORS_A_LAUNCH[max(depth, 1)]), math.ceil(blocks / _BLOCKS_A_LAUNCH))
    if name == "convolution_backward":
        return sum(args[-1])
    if name == "_cudnn_rnn":
        return 2 * tensors[0].shape[1]  # a product and the gates, step by step
    if name == "_cudnn_rnn_backward":
        return 2 * tensors[0].shape[1] + 1
    if name in ("native_dropout_backward", "native_layer_norm_backward"):
        return 1 if "dropout" in name else 2  # layer norm: of the input; of weight and bias
    if outs and not any(x.numel() for x in outs) and not func._schema.is_mutable:
        return 0
    return 1


def crosses(name: str, tensors: list[Tensor], gpu_out: list[Tensor], args: Any, kwargs: Any) -> bool:
    """Whether the host waits: a copy between host and GPU that is not asked to run on, or indices from the host."""
    if name in ("index", "index_put", "index_put_", "_index_put_impl_"):
        indices = [x for x in args[1] if isinstance(x, Tensor)]
        return any(not x.is_cuda or x.dtype == torch.bool for x in indices)
    if name in ("_to_copy", "copy_", "to"):
        if kwargs.get("non_blocking") or (name == "copy_" and len(args) > 2 and args[2]):
            return False
        devices = {x.is_cuda for x in tensors} | {bool(gpu_out)}
        return len(devices) > 1
    return False


def of_call(name: str, ins: list[Tensor], outs: list[Tensor], args: Any) -> Cost:
    """Of an operator of torch."""
    moved = sum(held_bytes(x) for x in outs)
    moved += moved if name in _BY_RESULT else sum(held_bytes(x) for x in ins)
    if name in _PRODUCTS:
        first, second = (args[place] for place in _PRODUCTS[name])
        return Cost(moved, 2 * first.numel() * second.shape[-1], rate(first.dtype))
    if name == "convolution":
        return Cost(moved, 2 * outs[0].numel() * args[1][0].numel(), rate(args[0].dtype))
    if name == "convolution_backward":
        one = 2 * args[0].numel() * args[2][0].numel()
        return Cost(moved, one * sum(args[-1][:2]), rate(args[0].dtype))
    if name.startswith("_scaled_dot_product"):
        backward = "backward" in name
        query, key = (args[1], args[2]) if backward else (args[0], args[1])
        return Cost(moved, (10 if backward else 4) * query.numel() * key.shape[-2], rate(query.dtype))
    if name == "_cudnn_rnn":
        weights = sum(x.numel() for x in args[1] if x.dim() > 1)
        return Cost(moved, 2 * weights * args[0].shape[0] * args[0].shape[1], rate(args[0].dtype))
    return Cost(moved)


def of_launch(launch: "Launch", tensors: list[Tensor]) -> Cost:
    """Of a Triton kernel, which reads or writes each of its tensors once, unless it is named below."""
    programs = math.prod(launch.grid)
    moved = sum(held_bytes(x) for x in {id(x): x for x in tensors}.values())  # unread arguments are given another's
    sizes = {**launch.integers, **launch.named_constants}
    name = launch.name if launch.has_dot else ""
    if launch.room == "recurrence":
        # Each program reads the weight's codes, its second or its fifth tensor, in every step.
        weight, rows = tensors[1 if launch.name == "_forward" else 4].numel(), programs * sizes["ROWS"]
        products = 2 * sizes["steps"] * rows * weight
        kind, passes = (torch.int8, 1) if launch.name == "_forward" else (torch.bfloat16, 2)
        return Cost(moved + sizes["steps"] * programs * weight, passes * products, rate(kind), programs)
    if name == "_linear_w8a8":
        return Cost(moved, 2 * sizes["rows"] * sizes["outputs"] * sizes["terms"], rate(torch.int8), programs)
    if name == "_convolve":
        return Cost(moved, 2 * tensors[-1].numel() * sizes["TERMS"], rate(torch.int8), programs)
    assert not launch.has_dot, f"{launch.name}: say in {Path(__file__).name} how many products it computes"
    return Cost(moved, programs=programs)


def rate(dtype: torch.dtype) -> float:
    """Multiplications and additions a second on operands of this type."""
    if dtype == torch.float32 and torch.backends.cuda.matmul.allow_tf32:
        return TF32_A_SECOND
    return PRODUCTS_A_SECOND.get(dtype, _FLOAT64_A_SECOND)
