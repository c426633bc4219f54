"""Declares an operator: a class of its arguments, which also checks them and computes the reference result.

    class IntMatmul(NamedTuple):
        x: Tensor
        weight: Tensor

        def check(self) -> None: ...              raises RuntimeError unless types and sizes fit
        def shape(self) -> Tensor: ...            the result without values, for tracing and compiling
        def reference(self) -> Tensor: ...        the result, in plain torch, on every device

    int_matmul = Operator("int_matmul(Tensor x, Tensor weight) -> Tensor", IntMatmul)

`int_matmul(x, weight)` then is `torch.ops.nibble.int_matmul`. A faster implementation registers for a type of device
with torch's dispatcher, in `nibble.kernels.implementations`.
"""

from collections.abc import Callable
from typing import Any, Generic, ParamSpec, Protocol, TypeVar

import torch

from nibble.kernels.implementations import LOADED, load_once

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


class Arguments(Protocol[R_co]):
    """The arguments of one call."""

    def check(self) -> None:
        """Raise RuntimeError unless types and sizes fit."""

    def shape(self) -> R_co:
        """The result without values, of checked arguments."""

    def reference(self) -> R_co:
        """The result in plain torch, of checked arguments."""


class Operator(Generic[P, R]):
    """An operator in torch's namespace "nibble", called like a function.

    Args:
        schema: name, arguments and result, as `torch.library.define` takes them.
        arguments: the class of its arguments, in the order of the schema and with its defaults.
        backward: gradients, as `torch.library.register_autograd` takes them; None: the result has no gradient.
        setup_context: saves what backward needs; None: it needs nothing.
    """

    def __init__(
        self,
        schema: str,
        arguments: Callable[P, Arguments[R]],
        backward: Callable[..., Any] | None = None,
        setup_context: Callable[..., None] | None = None,
    ) -> None:
        self.name, _, rest = schema.partition("(")
        self.schema = f"({rest}"
        self.arguments = arguments
        qualified = f"nibble::{self.name}"
        torch.library.define(qualified, self.schema)
        # "default" serves every type of device that nothing else is registered for.
        torch.library.impl(qualified, "default", self.reference)
        torch.library.register_fake(qualified, self.shape)
        if backward is not None:
            torch.library.register_autograd(qualified, backward, setup_context=setup_context or _save_nothing)
        self._overload = getattr(torch.ops.nibble, self.name).default  # bound: a look-up takes a seventh of a call

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """The result, from the fastest implementation for the device of the tensors.

        Raises:
            RuntimeError: types or sizes do not fit.
            UserError: NIBBLE_KERNELS names an implementation that cannot run here.
        """
        if not LOADED:
            load_once()
        found: R = self._overload(*args, **kwargs)
        return found

    def reference(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """The result in plain torch: the fallback, and what the integers of every implementation must equal."""
        return self._checked(*args, **kwargs).reference()

    def shape(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """The result without values."""
        return self._checked(*args, **kwargs).shape()

    def implemented_by(self, function: Callable[[Any], R]) -> Callable[P, R]:
        """The implementation `function`, which takes checked `Arguments`, as a function of the arguments."""

        def implementation(*args: P.args, **kwargs: P.kwargs) -> R:
            return function(self._checked(*args, **kwargs))

        return implementation

    def _checked(self, *args: P.args, **kwargs: P.kwargs) -> Arguments[R]:
        call = self.arguments(*args, **kwargs)
        call.check()
        return call


def _save_nothing(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    del ctx, inputs, output
