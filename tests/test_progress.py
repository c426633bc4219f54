"""The bar yields what it was given, and is shown only when work is long."""

import os
import pty
import subprocess
import sys

import pytest

from nibble import progress
from nibble.progress import track


def test_short_work_shows_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(track(iter("abc"), "spelling", 3)) == ["a", "b", "c"]
    assert capsys.readouterr().err == ""


def test_long_work_shows_a_bar(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "PATIENCE_S", -1.0)
    monkeypatch.setenv("FORCE_COLOR", "1")  # a terminal, as far as rich can tell
    assert list(track(["ab", "c"], "spelling", 3, size=len)) == ["ab", "c"]
    assert "spelling" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["dev-[red]", "dev-[/red]"])
def test_a_name_is_no_markup(name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "PATIENCE_S", -1.0)
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert list(track("ab", f"reading {name}", 2)) == ["a", "b"]
    assert f"reading {name}" in capsys.readouterr().err


def test_lines_printed_meanwhile_go_where_stdout_leads() -> None:
    """With the bar on a terminal and stdout in a file, as in `... > texts.txt`."""
    code = (
        "from nibble import progress; progress.PATIENCE_S = -1.0\n"
        "for item in progress.track('ab', 'spelling', 2): print(f'item {item}', flush=True)"
    )
    terminal, end = pty.openpty()
    done = subprocess.run(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=end,
        env={**os.environ, "TERM": "xterm"},
        text=True,
        timeout=60,
    )
    os.close(end)
    shown = os.read(terminal, 10_000).decode()
    os.close(terminal)
    assert done.stdout.splitlines() == ["item a", "item b"]
    assert "spelling" in shown
