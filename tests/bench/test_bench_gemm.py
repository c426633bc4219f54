"""The benches of a linear layer and of a training step, on sizes that take a moment."""

import pytest
import torch

from nibble.bench import gemm, train_step
from nibble.bench.timing import torch_threads
from nibble.errors import UserError
from nibble.kernels import implementations
from nibble.kernels.cpu import library

SMALL = {"UTTERANCES": 1, "FRAMES": 80, "LABELS": 3, "VOCABULARY": 32}


@pytest.mark.skipif(not library.paths(), reason=f"the CPU kernels are not loaded: {library.missing()}")
def test_a_linear_layer_is_timed_against_all(monkeypatch):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("torchao")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    monkeypatch.setattr(gemm, "SHAPES", ((32, 48), (64, 32)))
    monkeypatch.setattr("nibble.bench.timing._TURN_S", 1e-4)
    found = gemm.measure(rows=(1,), rounds=1)
    assert [one.case for one in found] == ["1 row, 32 to 48", "1 row, 64 to 32", *["1 row, mean of 2 shapes"] * 6]
    assert [one.baseline for one in found[2:]] == [
        "torch float32",
        "torch dynamic int8, x86",
        "torch dynamic int8, onednn",
        "torchao dynamic int8",
        "ONNX Runtime dynamic int8",
        "ONNX Runtime MatMulNBits",
    ]
    assert {one.threads for one in found} == {1}
    assert found[2].ratio == pytest.approx((found[0].ratio * found[1].ratio) ** 0.5)


@pytest.mark.skipif(not library.paths(), reason=f"the CPU kernels are not loaded: {library.missing()}")
def test_a_linear_layer_is_timed_on_all_threads(monkeypatch):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("torchao")
    monkeypatch.setattr(gemm, "SHAPES", ((32, 48),))
    monkeypatch.setattr("nibble.bench.timing._TURN_S", 1e-4)
    with torch_threads(2):
        found = gemm.measure(rows=(2,), rounds=1)
    assert [(one.threads, one.clock) for one in found] == [(1, "cpu")] * 7 + [(2, "wall")] * 7
    assert found[7].case == "2 rows, 32 to 48, 2 threads"


def test_without_kernels_a_linear_layer_is_not_timed(monkeypatch):
    monkeypatch.setattr(implementations, "IMPLEMENTATIONS", ())
    monkeypatch.delenv(implementations.VARIABLE, raising=False)
    with pytest.raises(UserError, match="make kernels builds them"):
        gemm.measure()


def test_a_training_step_is_timed(monkeypatch):
    for name, value in SMALL.items():
        monkeypatch.setattr(train_step, name, value)
    monkeypatch.setattr("nibble.bench.timing._TURN_S", 1e-4)
    with torch_threads(2):
        found = train_step.measure(models=("conformer_xxs",), rounds=1)
    assert [(one.contender.split()[1], one.baseline) for one in found] == 3 * [
        ("native", "float32"),
        ("native", "int4, fake"),
        ("fake", "float32"),
    ]
    assert [(one.case.split("4 x 10 s")[1], one.clock) for one in found[::3]] == [
        ("", "cpu"),
        (", 2 threads", "wall"),
        (", loss=rnnt_torchaudio", "cpu"),
    ]
    assert all(one.ratio > 0 for one in found)
