"""Divisions that make scales have the CPU's bits on a GPU."""

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from nibble.kernels import ops
from nibble.kernels.rounding import divide
from nibble.quant.numerics import absmax_scale, quantize_weight, static_scale
from nibble.quant.spec import ActivationSpec, Range, WeightSpec


class Divisors(TorchDispatchMode):
    """Remembers what is divided by."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.overloadpacket in (torch.ops.aten.div, torch.ops.aten.div_):
            self.found.append(args[1])
        return func(*args, **(kwargs or {}))


def test_it_divides_in_place():
    x = torch.tensor([1.0, 254.0])
    assert divide(x, 127) is x
    assert torch.equal(x, torch.tensor([1.0, 254.0]) / torch.tensor(127.0))


@pytest.mark.parametrize(
    "make",
    [
        ops.quantize_rows.reference,
        *(lambda x, range_=range_: absmax_scale(x, (1,), 4, range_) for range_ in Range),
        lambda x: static_scale(x[0, 0], ActivationSpec(8, static=True)),
        lambda x: quantize_weight(x, WeightSpec(4, symmetric=False), "weight"),
    ],
)
def test_on_a_gpu_no_scale_is_divided_by_a_number(make, monkeypatch):
    """CUDA's kernel multiplies by the reciprocal of a number, or of a scalar on the CPU."""
    monkeypatch.setattr("nibble.quant.finite._all_finite", lambda scale: True)  # a fake tensor has no values
    with FakeTensorMode(), Divisors() as divisors:
        make(torch.empty(3, 5, device="cuda"))
    assert divisors.found
    assert all(isinstance(divisor, Tensor) and divisor.is_cuda for divisor in divisors.found)
