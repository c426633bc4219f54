"""The bar yields what it was given, and is shown only when work is long."""

import pytest

from nibble.data import progress
from nibble.data.progress import track


def test_short_work_shows_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(track(iter("abc"), "spelling", 3)) == ["a", "b", "c"]
    assert capsys.readouterr().err == ""


def test_long_work_shows_a_bar(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "PATIENCE_S", -1.0)
    monkeypatch.setenv("FORCE_COLOR", "1")  # a terminal, as far as rich can tell
    assert list(track(["ab", "c"], "spelling", 3, size=len)) == ["ab", "c"]
    assert "spelling" in capsys.readouterr().err
