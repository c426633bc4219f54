"""Memory of what is evaluated, in records, on the terminal, and of every backend."""

import io
from dataclasses import replace
from pathlib import Path

import pytest

from nibble.evaluation.evaluate import evaluate_checkpoints
from nibble.evaluation.footprints import checkpoint_footprint, export_footprint
from nibble.evaluation.options import Backend, EvaluateConfig
from nibble.evaluation.printing import print_results
from nibble.export.options import Encoding
from nibble.hardware import HardwareConfig
from nibble.inference.footprint import footprint
from nibble.memory import Footprint
from nibble.runs.exported import read_exported
from nibble.runs.records import read
from nibble.terminal import Console


@pytest.fixture
def really(quick_footprint: Footprint, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is measured."""
    monkeypatch.setattr("nibble.evaluation.footprints.footprint", footprint)


def plausible(found: Footprint) -> bool:
    """Of a model of some thousand weights: buffers and thread pools take more than they do."""
    return (
        0 < found.load_s < 60
        and 2**18 < found.loaded_bytes <= found.ran_bytes + 2**20
        and found.ran_bytes <= found.peak_bytes + 2**20
        and found.peak_bytes < 2**29
    )


def test_of_a_checkpoint(really, fitted_run) -> None:
    assert plausible(checkpoint_footprint(fitted_run("stateless"), None))


@pytest.mark.parametrize(("backend", "package"), [(Backend.onnx, "onnxruntime"), (Backend.sherpa, "sherpa_onnx")])
def test_of_an_export(really, exported, backend: Backend, package: str) -> None:
    pytest.importorskip(package, reason=f"{package} is not installed: pip install -e '.[export]'")
    folder = exported("stateless", Encoding.w4a8)[2]
    assert plausible(export_footprint(read_exported(folder), backend))


def test_it_stands_in_the_record_and_is_printed(fitted_run, quick_footprint: Footprint, tmp_path: Path) -> None:
    options = EvaluateConfig(
        checkpoint=str(fitted_run("stateless")),
        hardware=HardwareConfig(threads=1, workers=0),
        records=str(tmp_path / "records.jsonl"),
    )
    results = evaluate_checkpoints(options)
    (record,) = read(tmp_path / "records.jsonl")
    assert record.memory == quick_footprint
    file = io.StringIO()
    print_results([*results, replace(results[0], record=replace(record, memory=None))], Console(file=file, width=200))
    assert file.getvalue().count("3 MB of memory in use, 2 after loading in 0.10 s, 4 at the most") == 1
