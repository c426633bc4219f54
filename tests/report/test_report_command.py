import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from nibble.bench import records as bench
from nibble.commands.report import main
from nibble.runs.records import append, read

MEASURED = bench.Measurement("size", "m", "int4", "float32", 7.0, None, 1, "a CPU", "0" * 40, "python", 1)


@pytest.fixture
def here(finished_runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy to write to, which is the present folder."""
    folder = shutil.copytree(finished_runs, tmp_path / "here", ignore=shutil.ignore_patterns("*.ckpt", "data"))
    monkeypatch.chdir(folder)
    return folder


def test_tables_go_to_standard_output_or_a_file(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs/tiny", "format=json"]) == 0
    systems = json.loads(capsys.readouterr().out)["systems"]
    assert [system["quant"] for system in systems] == ["float", "int4", "int4"]
    assert main(["runs/tiny/int4", "runs/tiny/float", "format=csv", "output=table.csv"]) == 0
    assert capsys.readouterr().out.startswith("table.csv: ")
    assert Path("table.csv").read_text().count("\n") == 4


def test_what_is_left_out_is_said(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    killed = Path(shutil.copytree("runs/tiny/int4", "runs/tiny/killed"))
    (killed / "run.json").write_text(json.dumps(json.loads((killed / "run.json").read_text()) | {"record": None}))
    lines = Path("runs/records.jsonl").read_text().splitlines(keepends=True)
    Path("runs/records.jsonl").write_text(lines[0])
    assert main(["runs", "format=md"]) == 0
    said = capsys.readouterr()
    assert "Left out (not finished): runs/tiny/killed." in said.err
    assert "Left out (no evaluation in runs/records.jsonl, or a later run has the same options): int4." in said.err
    assert "int4" not in said.out
    append(Path("runs/records.jsonl"), replace(read(Path("runs/records.jsonl"))[0], config_hash="0" * 12))
    assert main(["runs/tiny/int4", "format=md"]) == 1
    assert "no evaluation of int4; add one: python evaluate.py checkpoint=runs/tiny/int4" in capsys.readouterr().err


def test_what_is_published_is_copied_once(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["publish", "runs/tiny"]) == 0
    said = capsys.readouterr().out
    assert "results/records.jsonl: 3 evaluations of 2 runs" in said
    assert "left out" not in said
    assert read(Path("results/records.jsonl")) == read(Path("runs/records.jsonl"))
    Path("runs/bench.jsonl").write_text(json.dumps(asdict(MEASURED)) + "\n")
    assert main(["publish", "runs/tiny/int4", "runs/bench.jsonl"]) == 0
    assert len(read(Path("results/records.jsonl"))) == 3
    assert bench.read(Path("results/bench.jsonl")) == [MEASURED]
    assert main([]) == 0
    assert main(["check=true"]) == 0
    assert "## tiny: dev-tiny" in Path("RESULTS.md").read_text()


def test_an_evaluation_with_other_options_is_not_published_in_silence(here: Path, capsys) -> None:
    record = replace(
        read(Path("runs/records.jsonl"))[0], config_hash="0" * 12, command="evaluate.py checkpoint=[a/int4]"
    )
    append(Path("runs/records.jsonl"), record)
    assert main(["publish", "runs/tiny"]) == 0
    said = capsys.readouterr().out
    assert "left out: 1 evaluations that name these runs" in said
    assert record.command in said
    assert record not in read(Path("results/records.jsonl"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["publish"], "publish what? Give runs"),
        (["publish", "runs/none"], "runs/none is not a folder"),
        (["publish", "runs/tiny", "records=none.jsonl"], "no records at none.jsonl"),
        (["runs/none"], "runs/none is not a folder"),
        (["speech"], "speech is not a run folder"),
        (["runs", "records=none.jsonl"], "no records at none.jsonl"),
        (["runs", "check=true"], "check=true compares RESULTS.md"),
        (["format=md"], "format= and part= are for runs"),
        (["runs", "part=test-tiny", "format=md"], "nothing was measured on part test-tiny"),
        (
            ["runs", "format=md", "output=runs/records.jsonl/a.md"],
            "runs/records.jsonl/a.md cannot be written",
        ),
    ],
)
def test_messages(here: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 1
    assert message in capsys.readouterr().err
