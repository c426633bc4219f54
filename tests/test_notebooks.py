"""Every notebook runs from top to bottom in a kernel of its own, and is committed with small outputs."""

import json
import re
import shutil
from functools import cache
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """executed(stem) -> the cells of a notebook after it ran, once, in a folder that all of them share."""
    for package in ("nbmake", "espeakng_loader", "onnx", "sherpa_onnx"):
        pytest.importorskip(package, reason="pip install -e .[notebooks,test]")
    from nbmake.nb_run import NotebookRun

    folder = tmp_path_factory.mktemp("notebooks")
    for path in NOTEBOOKS:
        shutil.copy(path, folder)

    @cache
    def execute(stem: str) -> list[dict]:
        result = NotebookRun(folder / f"{stem}.ipynb", default_timeout=600).execute()
        assert result.error is None, result.error.trace
        return result.nb.cells

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        yield execute


@pytest.mark.parametrize("stem", [path.stem for path in NOTEBOOKS])
def test_runs_and_shows_pictures(stem, executed):
    executed("01-tour")  # trains what others look into
    outputs = [output for cell in executed(stem) for output in cell.get("outputs", [])]
    assert any("image/png" in output.get("data", {}) for output in outputs)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_keeps_small_outputs_where_it_is_only_looked_at(path):
    text = path.read_text(encoding="utf-8")
    outputs = [output for cell in json.loads(text)["cells"] for output in cell.get("outputs", [])]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert all(output["output_type"] != "error" and output.get("name") != "stderr" for output in outputs)
    assert len(text) < 300_000
    assert not re.findall(r"/(?:tmp|home|root|Users)/", text), "a path of the machine that it ran on"
