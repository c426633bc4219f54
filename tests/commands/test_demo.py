import io
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from nibble.commands.demo import demo_table, evaluate_demo, latest_of_each, main
from nibble.hardware import HardwareConfig
from nibble.runs.bundle import write_bundle
from nibble.runs.checkpoint import load_checkpoint
from nibble.runs.method import Method
from nibble.runs.records import read
from nibble.terminal import Console


@pytest.fixture
def branches(write_run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a finished run for each precision, and an older one of int4."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "demo"
    for age, quant in enumerate(["int4", "float", "int8", "int4"]):
        run = write_run(quant, "rules" if quant != "float" else "float")
        load = load_checkpoint(run)
        write_bundle(load, run / "bundle")
        for file in (run / "bundle").iterdir():
            os.utime(file, (age, age))
        shutil.move(run, folder / f"{quant}_{age}")
    return folder


def test_the_latest_finished_run_of_each_precision_counts(branches: Path) -> None:
    assert {quant: run.name for quant, run in latest_of_each(branches).items()} == {
        "float": "float_1",
        "int8": "int8_2",
        "int4": "int4_3",
    }


def test_each_precision_is_a_row_trained_beside_not_trained(branches: Path) -> None:
    records = evaluate_demo(latest_of_each(branches), None, HardwareConfig(threads=1, workers=0))
    assert {(r.quant, r.method.value) for r in records[:3]} == {("float", "float"), ("int8", "qat"), ("int4", "qat")}
    assert [(r.quant, r.method.value) for r in records[3:]] == [("int8", "ptq"), ("int4", "ptq"), ("int2", "ptq")]
    sizes = {r.quant: r.bundle_bytes for r in records}
    assert sizes["float"] > sizes["int8"] > sizes["int4"] > sizes["int2"]
    console = Console(width=80, file=io.StringIO())
    console.print(demo_table(records))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    rows = [line.split()[0] for line in text.splitlines() if "×" in line]
    assert rows == ["float", "int8", "int4", "int2"]
    int2 = next(line for line in text.splitlines() if "int2" in line)
    assert int2.count("–") == 1, "nothing was trained at 2 bits"
    assert "equally many steps" in text
    longer = [
        replace(record, steps=9) if record.quant == "int4" and record.method is Method.qat else record
        for record in records
    ]
    console = Console(width=80, file=io.StringIO())
    console.print(demo_table(longer))
    assert "steps" in console.file.getvalue()  # type: ignore[attr-defined]
    assert "equally many steps" not in console.file.getvalue()  # type: ignore[attr-defined]


def test_without_a_float_run(write_run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([f"folder={tmp_path}"]) == 1
    assert capsys.readouterr().err.startswith("error: ")


def test_the_records_are_kept(branches: Path, tmp_path: Path) -> None:
    assert main([f"folder={branches}", f"records={tmp_path / 'records.jsonl'}"]) == 0
    assert len(read(tmp_path / "records.jsonl")) == 6
