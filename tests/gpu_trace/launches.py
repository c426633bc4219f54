"""Triton launches without a GPU: bound as Triton binds them, checked against its limits, compiled for real GPUs."""

import re
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, make_backend
from triton.runtime.jit import JITFunction, create_function_from_signature

LARGEST_BLOCK = 2**20  # elements of a tensor in a kernel
LARGEST_GRID = (2**31 - 1, 65535, 65535)
CAPABILITIES = (80, 90, 120)
_BINDS_FOR = GPUTarget("cuda", 90, 32)


@dataclass
class Launch:
    """A Triton kernel with the types and constants that it is compiled for, and where it was launched."""

    kernel: JITFunction
    key: Any
    signature: dict[str, str]
    constants: dict[Any, Any]
    attributes: dict[Any, Any]
    options: dict[str, Any]
    grid: tuple[int, ...]  # the largest in each dimension
    integers: dict[str, int]  # arguments that are numbers, the largest of each
    largest: int  # elements of the largest tensor
    times: int = 0

    @property
    def name(self) -> str:
        return self.kernel.fn.__name__

    @property
    def has_dot(self) -> bool:
        return "tl.dot" in self.kernel.src

    @property
    def room(self) -> str:
        """The file of the kernel."""
        return self.kernel.fn.__module__.split(".")[-1]

    @property
    def named_constants(self) -> dict[str, int]:
        """Constants that are numbers."""
        names = self.kernel.arg_names
        return {names[path[0]]: value for path, value in self.constants.items() if isinstance(value, int)}

    @property
    def blocks(self) -> dict[str, int]:
        """Constants that are sizes of blocks."""
        return {name: value for name, value in self.named_constants.items() if "BLOCK" in name}

    def meet(self, other: "Launch") -> None:
        """Take the larger of both launches' sizes."""
        self.times += 1
        self.grid = tuple(map(max, self.grid, other.grid))
        self.integers = {name: max(value, other.integers[name]) for name, value in self.integers.items()}
        self.largest = max(self.largest, other.largest)

    def beyond_limits(self) -> list[str]:
        """What Triton or CUDA would refuse."""
        found = [f"{name}={value} is above 2^20" for name, value in self.blocks.items() if value > LARGEST_BLOCK]
        found += [
            f"grid {self.grid} is above {LARGEST_GRID}"
            for size, most in zip(self.grid, LARGEST_GRID, strict=True)
            if size > most
        ]
        return [f"{self.name}: {what}" for what in found]


@dataclass
class Compiled:
    """What a launch becomes for one GPU."""

    launch: Launch
    capability: int
    seconds: float
    registers: int
    spilled_bytes: int  # of stack, a thread
    shared_bytes: int
    instructions: list[str]  # of PTX, each once
    ttir: str = field(repr=False)


@contextmanager
def recorded(record: Callable[[Launch, list[Tensor]], None]) -> Iterator[None]:
    """Inside, a Triton launch is bound and given to `record`, with its tensors, in place of being run."""
    binders: dict[Any, Any] = {}
    backend = make_backend(_BINDS_FOR)

    def run(self: JITFunction, *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> None:
        assert not warmup
        kwargs |= {"debug": False, "instrumentation_mode": ""}
        if self not in binders:
            binders[self] = create_function_from_signature(self.signature, self.params, backend)
        tensors = [x for x in (*args, *kwargs.values()) if isinstance(x, Tensor)]
        given = [_Pointer(x) if isinstance(x, Tensor) else x for x in args]
        named = {name: _Pointer(x) if isinstance(x, Tensor) else x for name, x in kwargs.items()}
        bound, specialization, options = binders[self](*given, **named)
        if callable(grid):
            grid = grid(bound)
        key = (self.fn.__module__, self.fn.__name__, str(specialization), str(options))
        options, signature, constants, attributes = self._pack_args(backend, named, bound, specialization, options)
        sizes = {name: value for name, value in bound.items() if type(value) is int and signature[name] != "constexpr"}
        record(
            Launch(
                self, key, signature, constants, attributes, options.__dict__,
                (*grid, 1, 1)[:3], sizes, max((x.numel() for x in tensors), default=0),
            ),
            tensors,
        )  # fmt: skip

    with mock.patch.object(JITFunction, "run", run):
        yield


class _Pointer:
    """A tensor as Triton's binding sees it: a type, and an address that torch's allocator aligns to 512 bytes."""

    def __init__(self, x: Tensor) -> None:
        self.dtype, self._offset_bytes = x.dtype, x.storage_offset() * x.element_size()

    def data_ptr(self) -> int:
        return self._offset_bytes

    def ptr_range(self) -> int:
        return 2**40


def compiled(launch: Launch, capability: int, folder: Path) -> Compiled:
    """Compile for a GPU; registers and spills are those of its machine code."""
    source = ASTSource(launch.kernel, launch.signature, launch.constants, launch.attributes)
    started = time.process_time()
    options = {name: value for name, value in launch.options.items() if name not in ("arch",)}
    made = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    seconds = time.process_time() - started
    cubin = folder / f"{launch.name}_{made.hash[:16]}.cubin"
    cubin.write_bytes(made.asm["cubin"])
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    text = subprocess.run([tool, "--dump-resource-usage", cubin], capture_output=True, text=True, check=True).stdout
    registers, stack = (int(re.search(rf"{name}:(\d+)", text)[1]) for name in ("REG", "STACK"))  # type: ignore[index]
    instructions = sorted(set(re.findall(r"^\s*(?:@!?%\w+ )?([a-z]\w*\.[\w.:]+)", made.asm["ptx"], re.MULTILINE)))
    return Compiled(launch, capability, seconds, registers, stack, made.metadata.shared, instructions, made.asm["ttir"])
