"""A stream that is heard for long: what is counted, and that a stream that slows down or grows shows."""

from itertools import count

import numpy as np
import pytest

from nibble.bench import long_stream
from nibble.bench.long_stream import Stream, hear
from nibble.bench.timing import Moment


def test_a_small_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(long_stream, "in_process", lambda work: work())
    for package in ("onnx", "sherpa_onnx"):
        pytest.importorskip(package, reason=f"{package} is not installed: pip install -e '.[export]'")
    found = long_stream.measure("conformer_stream_xs", duration_s=20)
    assert [one.contender.partition(":")[0] for one in found] == [long_stream.SHERPA, long_stream.TORCH]
    for one in found:
        assert one.baseline == "the second tenth"
        assert 0 < one.ratio < 10
        assert 2**24 < one.loaded_bytes < 2 * one.ran_bytes
        assert 0 < int(one.case.split(", ")[2].removesuffix(" labels")) < 20 * 25


def test_one_that_slows_down_and_grows(monkeypatch: pytest.MonkeyPatch) -> None:
    clock_s = count(step=0.5)
    slow_s = 0.0
    monkeypatch.setattr(long_stream, "now", lambda: Moment(next(clock_s) + slow_s, 0.0))
    kept = []

    def hear_chunk() -> None:
        nonlocal slow_s
        kept.append(np.ones(2**17))  # 1 MiB
        slow_s += 0.5 if len(kept) <= 30 else 1.5

    found = hear(lambda: Stream(3.0, hear_chunk, lambda: len(kept)), 180)
    assert (found.labels, found.first_ms, found.last_ms) == (60, 1000, 2000)
    assert found.after_bytes - found.before_bytes >= 40 * 2**20
