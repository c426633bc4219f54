"""Triton kernels run on the GPU of their tensors."""

from types import SimpleNamespace

import pytest
import torch

pytest.importorskip("triton", reason="Triton is not installed")

from nibble.kernels.triton.launching import launch


def test_a_kernel_runs_on_the_gpu_of_its_first_tensor_and_the_current_one_stays(monkeypatch):
    current = [0]

    def exchange(device):
        if device < 0:
            return -1
        before, current[0] = current[0], device
        return before

    monkeypatch.setattr(torch.cuda, "_exchange_device", exchange)
    monkeypatch.setattr(torch.cuda, "_maybe_exchange_device", exchange)
    launches = []

    class Kernel:
        def __getitem__(self, grid):
            return lambda *arguments, **options: launches.append((grid, current[0], arguments[1:], options))

    second = SimpleNamespace(is_cuda=True, get_device=lambda: 1)
    launch(Kernel(), 3, second, "more", BLOCK=64)
    launch(Kernel(), (2, 5), torch.ones(1))
    assert launches == [
        ((3,), 1, ("more",), {"BLOCK": 64, "enable_fp_fusion": False}),
        ((2, 5), 0, (), {"enable_fp_fusion": False}),
    ]
    assert current == [0]
