"""`python evaluate.py` as a person types it."""

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "evaluate.py"


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SCRIPT), *arguments], cwd=folder, capture_output=True, text=True, timeout=300
    )


def test_evaluates_and_leaves_only_its_record(write_run, tmp_path: Path) -> None:
    done = run(tmp_path, f"checkpoint={write_run()}", "quant=int4", "hardware.threads=1", "part=[dev,test-tiny]")
    assert done.returncode == 0, done.stderr
    assert "int4 (ptq)" in done.stdout
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["data", "runs"]
    assert "evaluate.py checkpoint=" in (tmp_path / "runs" / "records.jsonl").read_text()


def test_slips_end_in_one_line_and_exit_code_1(write_run, tmp_path: Path) -> None:
    for arguments, text in [
        (["checkpoint=nowhere"], "error: nowhere does not exist"),
        (["checkpiont=a"], "nearest: checkpoint"),
        ([f"checkpoint={write_run()}", "quant=int5"], "nearest: int"),
        ([f"checkpoint={write_run()}", "data.noise.knd=none"], "nearest: data.noise.kind"),
    ]:
        done = run(tmp_path, *arguments)
        assert done.returncode == 1
        assert text in done.stderr
        assert "Traceback" not in done.stderr
