"""Fixtures of the operators' tests."""

import os
from importlib.util import find_spec

import pytest
import torch

from nibble.kernels import implementations

if os.environ.get("TRITON_INTERPRET") == "1" and find_spec("triton"):
    from triton.runtime import interpreter

    _patch_tensor = interpreter._patch_lang_tensor

    def _with_index(tensor, scope):
        """The interpreter of Triton 3.6 makes no integer of a kernel's argument with NumPy 2.4, as range() needs."""
        _patch_tensor(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.item()))

    interpreter._patch_lang_tensor = _with_index


implementations.load_once()  # before a test changes NIBBLE_KERNELS


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Tensors are small: a second thread only waits. For a module, so that its fixtures count in the same order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
