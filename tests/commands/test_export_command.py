"""`python -m nibble.export` as a person types it."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from nibble import packages
from nibble.commands.export import export
from nibble.data.options import Tokens
from nibble.errors import UserError
from nibble.export.options import Encoding, ExportConfig, Target
from nibble.quant.spec import QuantConfig, Rule, WeightSpec
from nibble.runs.checkpoint import load_checkpoint
from nibble.runs.exported import read_exported

pytest.importorskip("onnx", reason="onnx is not installed: pip install -e '.[export]'")


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "nibble.export", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)


def test_a_folder_the_table_and_the_command_that_measures_it(write_run, tmp_path: Path) -> None:
    checkpoint = write_run("int4", "rules")
    done = run(tmp_path, f"checkpoint={checkpoint}", "parity=true")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    folder = checkpoint / "sherpa_w4a8"
    exported = read_exported(folder)
    assert "it needs sherpa-onnx 1.12.20 or later" in done.stdout
    assert "encoder.blocks.0.feed_forward1.expansion" in done.stdout
    assert f"{folder}: {exported.size_bytes:,} bytes in all, " in done.stdout
    assert done.stdout.splitlines()[-1] == f"python evaluate.py checkpoint={folder} backend=sherpa"
    assert list(tmp_path.iterdir()) == []


def test_weights_beyond_what_one_file_holds_are_said(write_run, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("nibble.export.sherpa.folder.MOST_BYTES", 10_000)
    options = ExportConfig(str(write_run()), encoding=Encoding.float, output=str(tmp_path / "folder"))
    with pytest.raises(UserError, match=r"encoder.onnx would hold [\d,]+ bytes of weights, .* give encoding=w8a8"):
        export(options)
    assert not list(tmp_path.iterdir())


def test_characters_get_two_labels_a_frame_where_that_can_be(write_run) -> None:
    from nibble.export.onnx.graphs import default_labels_per_frame

    loaded = load_checkpoint(write_run())
    assert default_labels_per_frame(loaded) == 2
    loaded.config.data.tokens = Tokens.bpe
    assert default_labels_per_frame(loaded) == 1
    assert default_labels_per_frame(load_checkpoint(write_run(options=("model.predictor=lstm",)))) == 1


def test_slips_end_in_one_line_and_exit_code_1(write_run, tmp_path: Path) -> None:
    for arguments, text in [
        ([], "error: give checkpoint=RUN"),
        ([f"checkpoint={write_run()}", "encoding=w3a8"], "encoding: Invalid value 'w3a8', expected one of"),
        ([f"checkpoint={write_run()}", "encodng=w4"], "nearest: encoding"),
    ]:
        done = run(tmp_path, *arguments)
        assert done.returncode == 1
        assert text in done.stderr
        assert "Traceback" not in done.stderr


def test_float_weights_are_rounded_only_when_asked(write_run) -> None:
    checkpoint = write_run()
    with pytest.raises(UserError, match="say how with quant=int4"):
        export(ExportConfig(str(checkpoint), encoding=Encoding.w4a8))
    assert not (checkpoint / "sherpa_w4a8").exists()


def test_a_bundle(write_run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "140")  # a row in a line
    checkpoint = write_run("int4", "rules")
    folder = export(ExportConfig(str(checkpoint), target=Target.bundle, parity=True))
    assert folder == checkpoint / "bundle"
    assert load_checkpoint(folder).frozen
    said = capsys.readouterr().out
    assert "encoder.blocks.0.feed_forward1.expansion" in said
    assert re.search(r"all (\d+) .* (\d+) of \2 equal", said)
    assert said.splitlines()[-1] == f"python evaluate.py checkpoint={folder} backend=bundle"


def test_weights_that_were_not_trained_so_leave_the_folders_of_the_run_alone(write_run) -> None:
    run, int4 = write_run(), QuantConfig("int4", [Rule(weight=WeightSpec(bits=4))])
    own = export(ExportConfig(str(run), target=Target.bundle))
    rounded = export(ExportConfig(str(run), target=Target.bundle, quant=int4))
    assert (own, rounded) == (run / "bundle", run / "bundle_int4_nearest")
    assert (load_checkpoint(own).quant, load_checkpoint(rounded).quant) == ("float", "int4")
    assert export(ExportConfig(str(rounded))) == run / "sherpa_int4_nearest_w4a8"
    early = (run / "checkpoints/last.ckpt").rename(run / "checkpoints/phase_1_float.ckpt")
    assert export(ExportConfig(str(early), target=Target.bundle)) == run / "bundle_float"


def test_an_output_folder_that_holds_something_else(write_run, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="holds other files than an export"):
        export(ExportConfig(str(write_run()), output=str(tmp_path)))
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"target": Target.bundle, "encoding": Encoding.w4}, "encoding=w4 is for target=sherpa; leave it out"),
        ({"target": Target.bundle, "labels_per_frame": 2}, "labels_per_frame=2 is for target=sherpa"),
        ({"labels_per_frame": 0}, "labels_per_frame=0; give 1 to 2, or null"),
    ],
)
def test_options_that_contradict(options: dict[str, object], text: str) -> None:
    with pytest.raises(UserError, match=text):
        ExportConfig("run", **options)  # type: ignore[arg-type]


def test_a_package_that_is_not_installed(write_run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "find_spec", lambda _: None)
    with pytest.raises(UserError, match=r"target=sherpa needs onnx: pip install -e '.\[export\]'"):
        export(ExportConfig(str(write_run())))
    with pytest.raises(UserError, match="backend=sherpa needs sherpa-onnx"):
        packages.need("sherpa_onnx", "backend=sherpa")
