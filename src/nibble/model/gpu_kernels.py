"""Loads the Triton kernels of the transducer loss."""

from importlib import import_module
from types import ModuleType

from nibble.errors import UserError


def kernels(name: str) -> ModuleType:
    """The module `name` of this package, which needs Triton.

    Raises:
        UserError: there is none.
    """
    try:
        return import_module(f"nibble.model.{name}")
    except ImportError as error:
        raise UserError(
            f"the transducer loss needs Triton on a GPU ({error}); pip install triton, or give loss=rnnt_torchaudio"
        ) from error
