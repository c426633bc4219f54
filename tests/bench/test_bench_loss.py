"""The fused loss beside torchaudio's: what is measured, and what is claimed of it."""

import pytest

from nibble.bench import loss
from nibble.bench.loss import FUSED, REFERENCE, Sizes
from nibble.errors import UserError


def test_memory_and_time_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss.torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(loss.torch, "get_num_threads", lambda: 1)
    monkeypatch.setattr(loss, "_time", lambda *given: [("time", *given)])
    memory, time = loss.measure(Sizes(4, 100, 60, 16), rounds=2)
    assert (memory.bench, memory.case) == ("loss", "B 4, T 100, U 60, V 16: memory")
    assert (memory.contender, memory.baseline, memory.median_ms) == (FUSED, REFERENCE, None)
    assert memory.bytes is not None
    assert 2**20 < memory.bytes < 2**29
    assert 0.05 < memory.ratio < 0.9  # of the larger sizes that are claimed, a good deal less
    assert time[1:3] == (Sizes(4, 100, 60, 16), 2)


def test_time_alone() -> None:
    (found,) = loss._time(Sizes(2, 5, 3, 7), 2, loss.torch.device("cpu"))
    assert found.case.startswith("B 2, T 5, U 3, V 7: time, ")
    assert (found.contender, found.baseline, found.rounds) == (FUSED, REFERENCE, 2)
    assert found.median_ms > 0


def test_a_system_without_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss.Path, "is_file", lambda path: False)
    with pytest.raises(UserError, match="run it on Linux"):
        loss._resident_bytes("VmRSS")
