"""The faster implementations of the operators, and which of them run here.

They are loaded once: by a command before it starts, by `nibble.quant.convert.prepare`, or by the first call of an
operator. Without NIBBLE_KERNELS all that are built are loaded, and torch's dispatcher picks one by device.
NIBBLE_KERNELS=reference loads none; any other name loads only that one, and it is an error if it cannot run.
"""

import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType

from nibble.errors import UserError
from nibble.kernels.cpu import library as cpu
from nibble.kernels.cuda import library as cuda
from nibble.kernels.triton import library as triton

VARIABLE = "NIBBLE_KERNELS"
REFERENCE = "reference"


@dataclass(frozen=True)
class Implementation:
    """One set of compiled operators."""

    name: str  # as NIBBLE_KERNELS takes it
    device: str  # the type of device that its tensors are on
    operators: tuple[str, ...]
    built: Callable[[], bool]
    missing: Callable[[], str | None]  # why it cannot run here, with the cure; None if it can
    load: Callable[[], None]  # registers the operators, or raises UserError
    variant: Callable[[], str]  # the instructions that it uses here, once loaded


IMPLEMENTATIONS = (
    Implementation(
        name="cpu",
        device="cpu",
        operators=cpu.OPERATORS,
        built=cpu.built,
        missing=cpu.missing,
        load=cpu.load,
        variant=lambda: cpu.paths()[0],
    ),
    Implementation(
        name="cuda",
        device="cuda",
        operators=cuda.OPERATORS,
        built=cuda.built,
        missing=cuda.missing,
        load=cuda.load,
        variant=cuda.instructions,
    ),
    Implementation(
        name="triton",
        device="cuda",
        operators=triton.OPERATORS,
        built=lambda: triton.missing() is None,
        missing=triton.missing,
        load=triton.load,
        variant=lambda: "compiled when first called",
    ),
)


def wanted() -> tuple[Implementation, ...]:
    """The implementations that NIBBLE_KERNELS allows.

    Raises:
        UserError: it names no implementation.
    """
    chosen = os.environ.get(VARIABLE)
    if chosen is None:
        return IMPLEMENTATIONS
    names = [REFERENCE, *(implementation.name for implementation in IMPLEMENTATIONS)]
    if chosen not in names:
        raise UserError(
            f"{VARIABLE}={chosen} is not an implementation; give one of {', '.join(names)}, "
            "or leave it out for the fastest that is built"
        )
    return tuple(implementation for implementation in IMPLEMENTATIONS if implementation.name == chosen)


LOADED: list[bool] = []  # empty until the implementations are loaded


def load_once() -> None:
    """Load the implementations, unless they are loaded already; see `load`."""
    if not LOADED:
        load()
        LOADED.append(True)


def load() -> None:
    """Load the implementations that are allowed and built; warn of those that are built and cannot be loaded.

    Raises:
        UserError: the implementation that NIBBLE_KERNELS names cannot run here.
    """
    for implementation in wanted():
        try:
            if VARIABLE in os.environ or implementation.built():
                implementation.load()
        except UserError as error:
            if VARIABLE in os.environ:
                raise UserError(f"{VARIABLE}={implementation.name}: {error}") from error
            place = "Triton or the reference" if implementation is not IMPLEMENTATIONS[0] else "the reference"
            warnings.warn(f"{error}; {place} runs in its place", RuntimeWarning, stacklevel=2)


def used_by(operator: str, device: str) -> str:
    """The implementation that runs an operator on a type of device: `reference`, or `cpu (avx2)`."""
    for implementation in wanted():
        serves = implementation.device == device and operator in implementation.operators
        if serves and implementation.missing() is None:
            implementation.load()  # its variant is known then
            return f"{implementation.name} ({implementation.variant()})"
    return REFERENCE


def triton_kernels(module: str) -> ModuleType | None:
    """`nibble.kernels.triton.MODULE`, for kernels that are not operators.

    None where Triton cannot run, or NIBBLE_KERNELS names another implementation.
    """
    if not any(implementation.name == "triton" for implementation in wanted()) or triton.missing() is not None:
        return None
    return import_module(f"nibble.kernels.triton.{module}")
