"""Each operator is declared once: its schema agrees with its arguments. Libraries load at the first call."""

import os
import subprocess
import sys

import pytest
import torch
from refused_calls import GOOD

from nibble.kernels import ops


@pytest.mark.parametrize("name", ops.OPERATORS)
def test_the_schema_is_that_of_the_arguments(name: str) -> None:
    operator = ops.OPERATORS[name]
    schema = getattr(torch.ops.nibble, name).default._schema
    assert operator.name == name
    assert [argument.name for argument in schema.arguments] == list(operator.arguments._fields)
    defaults = {argument.name: argument.default_value for argument in schema.arguments if argument.has_default_value()}
    assert defaults.keys() == operator.arguments._field_defaults.keys()
    for argument, value in operator.arguments._field_defaults.items():
        if argument != "dtype":  # of which the schema keeps a number
            assert defaults[argument] == (list(value) if isinstance(value, tuple) else value), argument


@pytest.mark.parametrize("name", GOOD)
def test_the_shape_is_that_of_the_result(name: str) -> None:
    operator, given = ops.OPERATORS[name], GOOD[name].values()
    found, expected = operator.shape(*given), operator.reference(*given)
    for one, other in zip(*((x,) if isinstance(x, torch.Tensor) else x for x in (found, expected)), strict=True):
        assert (one.shape, one.dtype, one.stride()) == (other.shape, other.dtype, other.stride())


def test_libraries_are_loaded_by_the_first_call_and_not_by_an_import() -> None:
    program = """
import torch
from nibble.errors import UserError
from nibble.kernels import implementations, ops
assert not implementations.LOADED
try:
    ops.quantize_rows(torch.ones(1, 2))
except UserError as error:
    print(error)
"""
    environment = {**os.environ, "NIBBLE_KERNELS": "none"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("NIBBLE_KERNELS=none is not an implementation; give one of reference, cpu")
