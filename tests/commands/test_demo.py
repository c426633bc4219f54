import io
import shutil
from pathlib import Path

import pytest

from nibble.commands.demo import demo_table, evaluate_demo, main
from nibble.errors import UserError
from nibble.hardware import HardwareConfig
from nibble.runs.records import read
from nibble.terminal import Console


@pytest.fixture
def staged(write_run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run with a checkpoint at the end of each phase."""
    monkeypatch.chdir(tmp_path)
    run = write_run("int4", "rules")
    for number, precision in enumerate(["float", "int8"], start=1):
        phase = write_run("int4", precision) / "checkpoints" / "last.ckpt"
        shutil.copy(phase, run / "checkpoints" / f"phase_{number}_{precision}.ckpt")
    return run


def test_each_precision_is_a_row_trained_beside_not_trained(staged: Path) -> None:
    records = evaluate_demo(staged, None, HardwareConfig(threads=1, workers=0))
    assert [(r.quant, r.method) for r in records] == [
        ("float", "float"),
        ("int8", "qat"),
        ("int4", "qat"),
        ("int8", "ptq"),
        ("int4", "ptq"),
        ("int2", "ptq"),
    ]
    sizes = {r.quant: r.bundle_bytes for r in records}
    assert sizes["float"] > sizes["int8"] > sizes["int4"] > sizes["int2"]
    console = Console(width=80, file=io.StringIO())
    console.print(demo_table(records))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    rows = [line.split()[0] for line in text.splitlines() if "×" in line]
    assert rows == ["float", "int8", "int4", "int2"]
    int2 = next(line for line in text.splitlines() if "int2" in line)
    assert int2.count("–") == 1, "nothing was trained at 2 bits"


def test_a_run_that_is_not_staged(write_run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match="schedule=staged"):
        evaluate_demo(write_run(), None, HardwareConfig())
    assert main([str(tmp_path)]) == 1
    assert capsys.readouterr().err.startswith("error: ")


def test_the_records_are_kept(staged: Path, tmp_path: Path) -> None:
    assert main([str(staged), "--records", str(tmp_path / "records.jsonl")]) == 0
    assert len(read(tmp_path / "records.jsonl")) == 6
