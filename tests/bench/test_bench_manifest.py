"""The bench of large manifests, on a small one."""

import pytest

from nibble.bench.manifest import measure


def test_both_starts_are_measured(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    first, later = measure(lines=400)  # two recordings
    assert (first.case, first.clock) == ("400 lines", "wall")
    assert first.contender == "first batch of the first run"
    assert later.contender == "first batch of a later run"
    for one in (first, later):
        assert one.wall_ms is not None
        assert one.wall_ms > 0
        assert one.ratio == pytest.approx(one.wall_ms / 600_000)
        assert one.bytes is not None
        assert one.bytes > 10**8
