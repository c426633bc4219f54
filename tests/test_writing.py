"""A file or folder is there whole or not at all, and what killed processes left goes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from nibble import writing
from nibble.writing import clear, whole_file, whole_folder, write_text

DIES = """
import os, sys
from pathlib import Path
from nibble.writing import whole_file, whole_folder
target = Path(sys.argv[1])
with (whole_folder if sys.argv[2] == "folder" else whole_file)(target) as path:
    (path / "half" if path.is_dir() else path).write_text("half")
    os._exit(9)
"""


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_a_killed_process_left_is_cleared_by_the_next_writer(tmp_path, monkeypatch, kind):
    target = tmp_path / "model.bin"
    done = subprocess.run([sys.executable, "-c", DIES, str(target), kind], check=False)
    assert done.returncode == 9
    (left,) = names(tmp_path)
    assert left.startswith(".model.bin.")
    monkeypatch.setattr(writing, "_cleared", set())
    write_text(tmp_path / "other", "whole")
    assert names(tmp_path) == ["other"]


def test_what_another_process_is_writing_stays(tmp_path, monkeypatch):
    with whole_file(tmp_path / "a") as path:
        path.write_text("half")
        monkeypatch.setattr(writing, "_cleared", set())
        write_text(tmp_path / "b", "whole")
        clear(tmp_path)
        assert path.read_text() == "half"
    assert names(tmp_path) == ["a", "b"]


def test_an_error_leaves_what_was_there(tmp_path):
    def fail(context):
        with context as path:
            (path / "new" if path.is_dir() else path).write_text("new")
            raise KeyError

    write_text(tmp_path / "file", "old")
    (tmp_path / "folder").mkdir()
    write_text(tmp_path / "folder" / "old", "old")
    for context in (whole_file(tmp_path / "file"), whole_folder(tmp_path / "folder")):
        with pytest.raises(KeyError):
            fail(context)
    assert names(tmp_path) == ["file", "folder"]
    assert (tmp_path / "file").read_text() == "old"
    assert names(tmp_path / "folder") == ["old"]


def test_a_folder_takes_the_place_of_an_older_one(tmp_path):
    for name in ("first", "second"):
        with whole_folder(tmp_path / "bundle") as path:
            (path / name).touch()
    assert names(tmp_path) == ["bundle"]
    assert names(tmp_path / "bundle") == ["second"]


def test_others_may_read_what_was_written(tmp_path):
    umask = os.umask(0o022)
    try:
        write_text(tmp_path / "file", "text")
        with whole_folder(tmp_path / "folder"):
            pass
    finally:
        os.umask(umask)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o644
    assert (tmp_path / "folder").stat().st_mode & 0o777 == 0o755
