import json
import os
import shutil
from pathlib import Path

import pytest

from nibble.errors import UserError
from nibble.report.runs import find_runs
from nibble.runs.run_folder import RUN_FILE


def test_runs_are_found_below_a_folder_and_named_apart(finished_runs: Path) -> None:
    runs, unfinished = find_runs([finished_runs / "runs"])
    assert [run.name for run in runs] == ["float", "int4"]
    assert unfinished == []
    assert runs[1].config.quant.name == "int4"
    assert runs[1].settings["quant"]["name"] == "int4"
    assert runs[1].command == "python train.py name=tiny quant=int4 'data.corpus_dir=<b>'"
    (one,), _ = find_runs([finished_runs / "runs" / "tiny" / "int4"])
    assert one.name == "int4"


def test_a_run_named_twice_is_one_run(finished_runs: Path) -> None:
    folder = finished_runs / "runs"
    runs, _ = find_runs([folder, folder / "tiny" / "int4", folder / "tiny"])
    assert [run.name for run in runs] == ["float", "int4"]


def test_the_command_of_a_run_from_before_run_json(finished_runs: Path, tmp_path: Path) -> None:
    run = shutil.copytree(finished_runs / "runs" / "tiny" / "int4", tmp_path / "run")
    (run / RUN_FILE).unlink()
    assert find_runs([run])[0][0].command is None
    (run / ".hydra").mkdir()
    (run / ".hydra" / "overrides.yaml").write_text("- quant=int4\n- data.corpus_dir=<b>\n")
    assert find_runs([run])[0][0].command == "python train.py quant=int4 'data.corpus_dir=<b>'"


def test_what_is_not_finished_is_said(finished_runs: Path, tmp_path: Path) -> None:
    shutil.copytree(finished_runs / "runs" / "tiny" / "int4", tmp_path / "whole")
    half = shutil.copytree(finished_runs / "runs" / "tiny" / "int4", tmp_path / "half")
    (half / RUN_FILE).write_text(json.dumps(json.loads((half / RUN_FILE).read_text()) | {"record": None}))
    runs, unfinished = find_runs([tmp_path])
    assert [run.name for run in runs] == ["whole"]
    assert unfinished == [tmp_path / "half"]
    with pytest.raises(UserError, match=r"half is not finished. To go on: python train.py resume="):
        find_runs([tmp_path / "half"])
    shutil.rmtree(tmp_path / "whole")
    with pytest.raises(UserError, match=r"no run below .* is finished"):
        find_runs([tmp_path])


def test_what_is_no_run_is_refused(finished_runs: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is not a run folder, and no run lies below it.*Give runs/NAME/RUN"):
        find_runs([tmp_path])
    (tmp_path / "digits").mkdir()
    with pytest.raises(UserError, match=r"digit is not a folder; in .* there is: digits"):
        find_runs([tmp_path / "digit"])
    with pytest.raises(UserError, match=r"bundle is not a run folder"):
        find_runs([finished_runs / "runs" / "tiny" / "int4" / "bundle"])


def test_a_damaged_description_is_named(finished_runs: Path, tmp_path: Path) -> None:
    run = shutil.copytree(finished_runs / "runs" / "tiny" / "int4", tmp_path / "run")
    (run / "bundle" / "config.json").write_text("{")
    with pytest.raises(UserError, match=r"config.json cannot be read: .*leave this run out"):
        find_runs([run])


def test_links_to_runs_are_followed(finished_runs: Path, tmp_path: Path) -> None:
    os.symlink(finished_runs / "runs" / "tiny" / "int4", tmp_path / "linked")
    assert [run.name for run in find_runs([tmp_path])[0]] == ["linked"]
