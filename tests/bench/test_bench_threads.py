"""What is timed of threads that wait."""

import pytest

from nibble.bench import threads


def test_every_way_is_timed_in_both_cases(monkeypatch: pytest.MonkeyPatch) -> None:
    """With ways that cost little also where this machine has other work."""
    one = {"OMP_NUM_THREADS": "1"}
    monkeypatch.setattr(threads, "_CONTENDERS", {threads._ONE: one, threads._OWN: one})
    found = threads.measure(rounds=1)
    assert [(one.contender, one.baseline, one.case.partition(", ")[2]) for one in found] == [
        ("one thread", "OpenMP's own waiting", "alone"),
        ("one thread", "OpenMP's own waiting", "beside a busy process"),
        ("one thread", "one thread, alone", "beside a busy process"),
        ("OpenMP's own waiting", "OpenMP's own waiting, alone", "beside a busy process"),
    ]
    assert all(one.ratio > 0 for one in found)
