"""Fixtures of the operators' tests."""

import os
from importlib.util import find_spec

from one_thread import one_thread  # noqa: F401 - a fixture

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
