"""The bench of large manifests, on a small one."""

from nibble.bench.manifest import measure


def test_both_starts_are_measured(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    first, later = measure(lines=2_500)  # two recordings
    assert (first.case, first.clock) == ("2,500 lines", "wall")
    assert first.contender == "first batch of the first run"
    assert later.contender == "first batch of a later run"
    for one in (first, later):
        assert one.wall_ms is not None
        assert one.ratio * 600_000 == one.wall_ms > 0
        assert one.bytes is not None
        assert one.bytes > 10**8
