"""`python -m nibble.quantize` as a person types it."""

import subprocess
import sys
from pathlib import Path

import pytest

from nibble.commands.quantize import quantize_checkpoint
from nibble.errors import UserError
from nibble.evaluation.evaluate import evaluate_checkpoints
from nibble.evaluation.options import EvaluateConfig
from nibble.hardware import HardwareConfig
from nibble.post_training.options import QuantizeConfig, Rounding
from nibble.quant.spec import QuantConfig, Rule, WeightSpec
from nibble.runs.checkpoint import load_checkpoint
from nibble.runs.run_folder import RunFolder

INT4 = QuantConfig("int4", [Rule(weight=WeightSpec(bits=4))])


def run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *command], cwd=folder, capture_output=True, text=True, timeout=300)


def test_a_bundle_and_the_command_that_evaluates_it(write_run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = write_run()
    done = run(tmp_path, "-m", "nibble.quantize", f"checkpoint={checkpoint}", "quant=int4", "rounding=gptq")
    assert done.returncode == 0, done.stderr
    assert "gptq on 12 utterances: " in done.stdout
    assert "rounded to nearest, since no product with them was seen: predictor.embedding.weight\n" in done.stdout
    assert f"{checkpoint}/bundle_int4_gptq: " in done.stdout
    assert "× smaller than float32" in done.stdout
    assert [entry.name for entry in tmp_path.iterdir()] == ["data"]
    loaded = load_checkpoint(checkpoint / "bundle_int4_gptq")
    assert (loaded.quant, loaded.method, loaded.config.quant.name) == ("int4", "gptq", "int4")
    assert done.stdout.splitlines()[-1] == f"python evaluate.py checkpoint={checkpoint}/bundle_int4_gptq"
    given = EvaluateConfig(checkpoint=f"{checkpoint}/bundle_int4_gptq", records=None, hardware=HardwareConfig())
    monkeypatch.chdir(tmp_path)
    (result,) = evaluate_checkpoints(given)
    assert (result.record.quant, result.record.method) == ("int4", "gptq")


def test_slips_end_in_one_line_and_exit_code_1(write_run, tmp_path: Path) -> None:
    for arguments, text in [
        (["quant=int4"], "error: give checkpoint=RUN"),
        ([f"checkpoint={write_run()}", "rounding=gtpq"], "rounding: "),
        ([f"checkpoint={write_run()}", "rouding=gptq"], "nearest: rounding"),
    ]:
        done = run(tmp_path, "-m", "nibble.quantize", *arguments)
        assert done.returncode == 1
        assert text in done.stderr
        assert "Traceback" not in done.stderr


def options(run: Path, output: Path | None = None) -> QuantizeConfig:
    where = None if output is None else str(output)
    return QuantizeConfig(str(run), INT4, Rounding.nearest, output=where, hardware=HardwareConfig())


def test_nearest_says_size_and_command(write_run, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = write_run()
    folder = quantize_checkpoint(options(checkpoint))
    assert folder == checkpoint / "bundle_int4_nearest"
    assert capsys.readouterr().out.splitlines()[-1] == f"python evaluate.py checkpoint={folder}"
    assert load_checkpoint(folder).method == "ptq"


def test_the_run_that_a_checkpoint_or_a_bundle_lies_in() -> None:
    assert RunFolder.of(Path("runs/a/checkpoints/best.ckpt")).path == Path("runs/a")
    assert RunFolder.of(Path("runs/a/bundle")).path == Path("runs/a")
    assert RunFolder.of(Path("best.ckpt")).path == Path()


def test_an_output_folder_that_holds_something_else(write_run, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="holds other files than a bundle"):
        quantize_checkpoint(options(write_run(), tmp_path))
    with pytest.raises(UserError, match="is a file"):
        quantize_checkpoint(options(write_run(), tmp_path / "notes.txt"))
    assert (tmp_path / "notes.txt").read_text() == "mine"
