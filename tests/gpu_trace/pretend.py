"""A GPU that is not there: torch and Triton take their CUDA branches, and nothing is computed.

Tensors are fake ones on the device "cuda": they have shapes, types and strides, and no values. Under `Trace`, every
operator that a step would launch is written down, the operators of `nibble` run the Python that is registered for CUDA,
and a Triton launch is bound as Triton would bind it and then left out.

Small tensors that are made from lengths keep their values beside them, because the code decides by them: how
utterances are grouped, how long the longest is. A number that is read from any other tensor is 1.
"""

import sys
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field, fields
from functools import cache, partial
from types import SimpleNamespace
from typing import Any
from unittest import mock

import costs
import launches
import torch
import torch.optim.optimizer
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, init_gpu_context
from torch.distributed.tensor import DTensor
from torch.utils._mode_utils import no_dispatch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map
from torch.utils.weak import WeakIdKeyDictionary

from nibble.kernels import implementations

GPU = torch.device("cuda", 0)
H200 = SimpleNamespace(
    multi_processor_count=costs.MULTIPROCESSORS, total_memory=141 * 2**30, name="NVIDIA H200", major=9, minor=0
)
_SMALL = 4096  # elements of a tensor whose values are kept
_ROUNDS = 3  # how often a loop that waits for a value on the GPU goes on
_READS = ("_local_scalar_dense", "item")
_DEVICE_OF = torch.ops.prim.device.default
_DYNAMIC = ("nonzero", "masked_select", "repeat_interleave", "unique", "_unique2")


@dataclass
class Found:
    """What a stretch of work would do on the GPU."""

    launches: int = 0
    seconds: float = 0.0  # modelled
    peak_bytes: int = 0  # most that tensors hold together
    synchronisations: Counter[str] = field(default_factory=Counter)  # source line -> how often the host waits there
    by_operator: Counter[str] = field(default_factory=Counter)  # launches
    seconds_by_operator: Counter[str] = field(default_factory=Counter)
    large: Counter[str] = field(default_factory=Counter)  # operators that are given 2^31 elements or more

    @property
    def waits(self) -> int:
        return self.synchronisations.total()

    def extended(self, other: "Found", times: int) -> "Found":
        """This, and so often what `other` has beyond it."""

        def more(mine: Any, its: Any) -> Any:
            if not isinstance(mine, Counter):
                return mine + times * (its - mine)
            return Counter({name: more(mine[name], its[name]) for name in mine | its})

        return Found(**{part.name: more(getattr(self, part.name), getattr(other, part.name)) for part in fields(Found)})


class Trace(TorchDispatchMode):
    """Inside, counts what goes to the GPU; see the module."""

    def __init__(self, operators: dict[str, Callable[..., Any]], compiled: tuple[str, ...]) -> None:
        super().__init__()
        self.operators = operators  # name -> what runs for a CUDA tensor
        self.compiled = compiled  # operators in CUDA C++: one launch each
        self.found = Found()
        self.kernels: dict[Any, launches.Launch] = {}  # distinct ones, as Triton tells them apart
        self.values = WeakIdKeyDictionary()
        self._held: dict[int, int] = {}
        self._bytes = 0
        self._asked: Counter[str] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        if func is _DEVICE_OF:
            return args[0].fake_device
        kwargs = kwargs or {}
        tensors = [x for x in tree_flatten((args, kwargs))[0] if isinstance(x, Tensor)]
        name = func._schema.name.split("::")[1]
        on_gpu = any(x.is_cuda for x in tensors)
        if func.namespace == "nibble" and on_gpu and name not in self.compiled:
            if name == "quantize_weights":  # whose kernel is given addresses of weights, and no tensors
                self._add(f"nibble::{name}", 0, costs.Cost(sum(map(costs.held_bytes, tensors))), tensors)
            with self:
                return self.operators[name](*args, **kwargs)
        if _is_composite(func):
            with self:
                if (made := func.decompose(*args, **kwargs)) is not NotImplemented:
                    return made
        if name in _READS:
            return self._read(tensors[0])
        if name in _DYNAMIC:
            return self._dynamic(name, tensors)
        out = func(*args, **kwargs)
        self._keep_values(func, tensors, args, kwargs, out)
        self._count(func, name, tensors, args, kwargs, out)
        return out

    def waits(self) -> None:
        """The host waits for the GPU here."""
        self.found.synchronisations[_where()] += 1

    def launch(self, one: "launches.Launch", tensors: list[Tensor]) -> None:
        """A Triton kernel would start."""
        self.kernels.setdefault(one.key, one).meet(one)
        self._add(f"triton::{one.name}", 1, costs.of_launch(one, tensors), tensors)

    def given(self, numbers: Tensor) -> Tensor:
        """A fake tensor of these numbers on the host, which are kept."""
        with self:
            fake = torch.empty(len(numbers), dtype=numbers.dtype)
        if len(numbers) <= _SMALL:
            self.values[fake] = numbers
        return fake

    def lengths(self, lengths: list[int]) -> Tensor:
        """Lengths (B,), on the host."""
        with no_dispatch():
            numbers = torch.tensor(lengths)
        return self.given(numbers)

    def list_of(self, x: Tensor) -> Any:
        """tolist(), for which a GPU is waited for."""
        if x.is_cuda:
            self.waits()
        value = self._value(x)
        with no_dispatch():
            return value.tolist()

    def _value(self, x: Tensor) -> Tensor:
        if x in self.values:
            return self.values[x]
        if (constant := getattr(x, "constant", None)) is not None:
            return constant
        with no_dispatch():
            return torch.ones(x.shape, dtype=x.dtype)

    def _read(self, x: Tensor) -> Any:
        if x.is_cuda:
            self.waits()
        if x.dtype == torch.bool and x not in self.values:
            self._asked[where := _where()] += 1
            return bool(self._asked[where] % (_ROUNDS + 1))
        with no_dispatch():
            return self._value(x).item()

    def _dynamic(self, name: str, tensors: list[Tensor]) -> Any:
        """A result as long as it can be: every element counts, each once."""
        x = tensors[0]
        if name == "repeat_interleave":
            assert not x.is_cuda, "repeat_interleave on a GPU is not traced"
            value = self._value(x)
            with no_dispatch():
                numbers = torch.repeat_interleave(value)
            return self.given(numbers)
        if x.is_cuda:
            self.waits()
            self._add(f"aten::{name}", 3, costs.Cost(2 * costs.held_bytes(x)), [x])  # count, scan, write
        if name == "nonzero":
            places = x.new_empty((x.numel(), x.dim()), dtype=torch.long)
            if x.numel() <= _SMALL:
                with no_dispatch():
                    self.values[places] = torch.ones(x.shape).nonzero()
            return places
        assert name == "masked_select", f"{name} is not traced"
        return x.new_empty(x.numel())

    def _keep_values(self, func: Any, tensors: list[Tensor], args: Any, kwargs: Any, out: Any) -> None:
        if func is torch.ops.aten.detach_.default:
            return
        if func._schema.is_mutable:
            for argument, value in zip(func._schema.arguments, args, strict=False):
                if argument.alias_info is not None and argument.alias_info.is_write:
                    for x in tree_flatten(value)[0]:
                        self.values.pop(x, None)
            return
        if not tensors or not isinstance(out, Tensor) or out.numel() > _SMALL:
            return
        if len(tensors) == 1 and not isinstance(tensors[0], FakeTensor):  # numbers of Python
            self.values[out] = tensors[0]
            return
        if not all(x in self.values or getattr(x, "constant", None) is not None for x in tensors):
            return
        real = [tree_map(lambda x: self._value(x) if isinstance(x, Tensor) else x, part) for part in (args, kwargs)]
        if "device" in real[1]:
            real[1] = {**real[1], "device": torch.device("cpu")}
        with no_dispatch():
            found = func(*real[0], **real[1])
        if isinstance(found, Tensor):
            self.values[out] = found

    def _count(self, func: Any, name: str, tensors: list[Tensor], args: Any, kwargs: Any, out: Any) -> None:
        outs = [x for x in tree_flatten(out)[0] if isinstance(x, Tensor)]
        for x in outs:
            self._hold(x)
        gpu_in, gpu_out = [x for x in tensors if x.is_cuda], [x for x in outs if x.is_cuda]
        if not gpu_in and not gpu_out:
            return
        if costs.crosses(name, tensors, gpu_out, args, kwargs):
            self.waits()
        count = costs.launched(func, name, tensors, outs, args)
        if count:
            self._add(
                f"{func.namespace}::{name}", count, costs.of_call(name, gpu_in, gpu_out, args), [*gpu_in, *gpu_out]
            )

    def _add(self, name: str, count: int, cost: "costs.Cost", tensors: list[Tensor]) -> None:
        self.found.launches += count
        self.found.by_operator[name] += count
        self.found.seconds += cost.seconds
        self.found.seconds_by_operator[name] += cost.seconds
        if any(x.numel() >= 2**31 for x in tensors):
            self.found.large[name] += 1

    def _hold(self, x: Tensor) -> None:
        if not x.is_cuda:
            return
        storage = x.untyped_storage()
        key = storage._cdata
        if key in self._held:
            return
        size = storage.nbytes()
        self._held[key] = size
        self._bytes += size
        self.found.peak_bytes = max(self.found.peak_bytes, self._bytes)
        weakref.finalize(storage, self._drop, key)

    def _drop(self, key: int) -> None:
        self._bytes -= self._held.pop(key, 0)

    @contextmanager
    def stretch(self) -> Iterator[Found]:
        """Count what happens inside by itself."""
        self.found = Found(peak_bytes=self._bytes)
        self._asked.clear()
        yield self.found
        self.found = Found()


@contextmanager
def gpu() -> Iterator[Trace]:
    """Inside, torch says that there is an H200, and tensors on it are fake."""
    mode = FakeTensorMode()
    init_gpu_context(GPU)  # while there is none: it would make a tensor
    torch._C._ensureCUDADeviceGuardSet()
    implementations.load_once()  # before there seems to be a GPU, whose driver it would ask
    with ExitStack() as stack:
        for target, name, value in _PRETENCE:
            stack.enter_context(mock.patch.object(target, name, value))
        operators, compiled = registered()
        trace = Trace(operators, compiled)
        stack.enter_context(launches.recorded(trace.launch))
        stack.enter_context(mock.patch.object(FakeTensor, "tolist", lambda x: trace.list_of(x)))
        stack.enter_context(mock.patch.object(torch.nn.functional, "scaled_dot_product_attention", _attention))
        stack.enter_context(mock.patch.object(torch._VF, "lstm", partial(_cudnn_lstm, trace)))
        stack.enter_context(mode)
        stack.enter_context(trace)
        yield trace


def registered() -> tuple[dict[str, Callable[..., Any]], tuple[str, ...]]:
    """What runs for CUDA tensors: operator -> Python function, and the names of those in CUDA C++."""
    from nibble.kernels import ops
    from nibble.kernels.cuda import library as cuda
    from nibble.kernels.triton import library as triton

    found: dict[str, Callable[..., Any]] = {name: operator.reference for name, operator in ops.OPERATORS.items()}

    class Library:
        def __init__(self, *_: Any) -> None: ...

        def impl(self, name: str, function: Callable[..., Any], key: str) -> None:
            assert key == "CUDA", key
            found[name] = function

    with (
        mock.patch.object(torch.library, "Library", Library),
        mock.patch.object(triton, "_library", []),
        mock.patch.object(triton, "missing", return_value=None),
    ):
        triton.load()
    return found, cuda.OPERATORS


def _attention(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor, dropout_p: float = 0.0, scale: float = 1.0
) -> Tensor:
    """torch's scaled dot product, as torch picks it on a GPU: the memory-efficient kernel, or step by step."""
    if torch.is_autocast_enabled("cuda"):
        kind = torch.get_autocast_dtype("cuda")
        query, key, value, attn_mask = (x.to(kind) for x in (query, key, value, attn_mask))
    if query.shape[-1] % (16 // query.element_size()):
        return _sdpa(query, key, value, attn_mask, dropout_p, scale=scale)
    if (over := attn_mask.shape[-1] % 16) != 0:
        attn_mask = torch.nn.functional.pad(attn_mask, (0, 16 - over))[..., : -16 + over]
    training = torch.is_grad_enabled() and query.requires_grad
    efficient = torch.ops.aten._scaled_dot_product_efficient_attention
    return efficient(query, key, value, attn_mask, training, dropout_p, False, scale=scale)[0]


_sdpa = torch.nn.functional.scaled_dot_product_attention


def _gradients(outputs: Any, inputs: Any, slopes: Any = None, allow_unused: bool = False) -> tuple[Tensor | None, ...]:
    """torch.autograd.grad, of leaves: there, torch asks streams of the GPU for what it hands out itself."""
    assert allow_unused
    assert all(x.is_leaf for x in inputs)
    before = [x.grad for x in inputs]
    for x in inputs:
        x.grad = None
    torch.autograd.backward(outputs, slopes, inputs=list(inputs))
    found = tuple(x.grad for x in inputs)
    for x, gradient in zip(inputs, before, strict=True):
        x.grad = gradient
    return found


def _cudnn_lstm(trace: Trace, x: Tensor, state: list[Tensor], weights: list[Tensor], *_: Any) -> tuple[Tensor, ...]:
    """torch's LSTM of one layer, batch first: x (B, U, K) -> (B, U, N); torch would ask the GPU for cuDNN's version."""
    if torch.is_autocast_enabled("cuda"):
        kind = torch.get_autocast_dtype("cuda")
        x, state, weights = x.to(kind), [part.to(kind) for part in state], [weight.to(kind) for weight in weights]
    return _Lstm.apply(trace, x, *state, *weights)


class _Lstm(torch.autograd.Function):
    """A product for all steps, then in each step a product and the gates; backward so too, and weights at the end."""

    @staticmethod
    def forward(
        ctx: Any, trace: Trace, x: Tensor, hidden: Tensor, cell: Tensor, *weights: Tensor
    ) -> tuple[Tensor, ...]:
        ctx.trace, ctx.tensors = trace, (x, hidden, cell, *weights)
        out = x.new_empty(*x.shape[:2], hidden.shape[-1])
        _Lstm.add(trace, "lstm", x, weights, out, 1 + 2 * x.shape[1], 1)
        return out, hidden.new_empty(hidden.shape), cell.new_empty(cell.shape)

    @staticmethod
    def backward(ctx: Any, by_out: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        x, _, _, *weights = ctx.tensors
        _Lstm.add(ctx.trace, "lstm_backward", x, weights, by_out, 3 + 2 * x.shape[1], 2)
        return None, *(part.new_empty(part.shape) for part in ctx.tensors)

    @staticmethod
    def add(trace: Trace, name: str, x: Tensor, weights: Any, out: Tensor, launches: int, passes: int) -> None:
        products = 2 * passes * x.shape[0] * x.shape[1] * sum(weight.numel() for weight in weights)
        read = passes * x.shape[1] * sum(costs.held_bytes(weight) for weight in weights)
        trace._add(name, launches, costs.Cost(read, products, costs.rate(x.dtype)), [x, out])


@cache
def _is_composite(func: Any) -> bool:
    """Whether a call is only made of others; below autograd such a call comes whole."""
    has = torch._C._dispatch_has_kernel_for_dispatch_key
    return has(func.name(), "CompositeImplicitAutograd") and not has(func.name(), "CUDA")


def _where() -> str:
    """The line of `nibble` or of a test that is at work."""
    frame = sys._getframe(2)
    last = ""
    while frame is not None:
        file = frame.f_code.co_filename
        if "/nibble/" in file:
            return f"{file.split('/nibble/')[-1]}:{frame.f_lineno}"
        if not last and "gpu_trace" not in file and "_dispatch" not in file and "_subclasses" not in file:
            last = f"{'/'.join(file.split('/')[-2:])}:{frame.f_lineno}"
        frame = frame.f_back
    return last


_FOREACH = [Tensor, FakeTensor, DTensor]  # torch's own list has no fake ones
_PRETENCE: list[tuple[Any, str, Any]] = [
    (FakeTensorMode, "avoid_device_init", True),
    (Tensor, "pin_memory", lambda x, *_: x),
    (torch.nn.LSTM, "flatten_parameters", lambda _: None),  # asks for addresses
    (torch.cuda, "is_available", lambda: True),
    (torch.cuda, "is_initialized", lambda: True),
    (torch.cuda, "_lazy_init", lambda: None),
    (torch.cuda, "is_bf16_supported", lambda *_, **__: True),
    (torch.cuda, "device_count", lambda: 1),
    (torch.cuda, "current_device", lambda: 0),
    (torch.cuda, "set_device", lambda *_: None),
    (torch.cuda, "get_device_capability", lambda *_: (9, 0)),
    (torch.cuda, "get_device_properties", lambda *_: H200),
    (torch.cuda, "get_device_name", lambda *_: H200.name),
    (torch.cuda, "mem_get_info", lambda *_: (120 * 2**30, H200.total_memory)),
    (torch.cuda, "memory_allocated", lambda *_: 0),
    (torch.cuda, "device", lambda *_: nullcontext()),
    (torch.cuda, "device_of", lambda *_: nullcontext()),
    (torch.cuda, "is_current_stream_capturing", lambda: False),
    (sys.modules["torch.optim.optimizer"], "_foreach_supported_types", [*_FOREACH, torch.nn.Parameter]),
    (sys.modules["torch.utils._foreach_utils"], "_foreach_supported_types", _FOREACH),
]
