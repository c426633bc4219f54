import subprocess
from pathlib import Path

from nibble import provenance


def git(folder: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True)


def test_commit_says_whether_the_source_differs(tmp_path: Path) -> None:
    assert provenance.commit(tmp_path) == "no commit"
    git(tmp_path, "init")
    (tmp_path / "code.py").write_text("1")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "one")
    clean = provenance.commit(tmp_path)
    assert len(clean) == 40
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "records.jsonl").write_text("a result is no change of the source")
    assert provenance.commit(tmp_path) == clean
    (tmp_path / "code.py").write_text("2")
    assert provenance.commit(tmp_path) == clean + "+dirty"


def test_hash_ignores_what_does_not_change_the_result() -> None:
    values = {
        "seed": 1,
        "run_dir": "a",
        "records": "here.jsonl",
        "data": {"corpus": "digits", "corpus_dir": "here", "noise": {"dir": None}},
        "hardware": {"threads": 1, "batch_duration_s": 40},
        "logger": {"csv": True},
    }
    same = {
        "seed": 1,
        "run_dir": "b",
        "records": None,
        "data": {"corpus": "digits", "corpus_dir": "there", "noise": {"dir": "n"}},
        "hardware": {"threads": 2, "batch_duration_s": 40},
        "logger": {"csv": False},
    }
    before = provenance.config_hash(values)
    assert provenance.config_hash(same) == before
    assert provenance.config_hash({**values, "seed": 2}) != before
    assert provenance.config_hash({**values, "evaluation": {"decoding": "beam"}}) != before
    assert values["run_dir"] == "a", "the configuration itself stays as it is"


def test_hardware_and_command_are_said() -> None:
    assert "cores" in provenance.hardware()
    assert provenance.command().startswith("python ")
