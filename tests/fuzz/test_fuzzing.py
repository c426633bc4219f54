"""The runner sees everything that a file may not do."""

import ctypes
import shutil
import subprocess
import time
from itertools import islice
from pathlib import Path
from random import Random

import numpy as np
import pytest
from fuzzing import COMMAND, Kind, run
from mutations import HOSTILE, hostile

from nibble.errors import UserError


def refuse(_folder: Path) -> None:
    raise UserError("this is no number; give one")


def say_nothing(_folder: Path) -> None:
    raise UserError("")


def raise_something_else(_folder: Path) -> None:
    raise ValueError("a traceback")


def crash(_folder: Path) -> None:
    ctypes.string_at(0)


def leave(_folder: Path) -> None:
    raise SystemExit(3)


def hang(_folder: Path) -> None:
    time.sleep(60)


def fill_memory(_folder: Path) -> None:
    np.ones(2**29)


def execute(_folder: Path) -> None:
    subprocess.run(COMMAND, shell=True, check=True)
    raise UserError("too late")


def differ(_folder: Path) -> None:
    assert [1] == [2], "something else was loaded"


@pytest.mark.parametrize(
    ("load", "why"),
    [
        (say_nothing, "a message of 0 characters"),
        (raise_something_else, "ValueError: a traceback"),
        (crash, "ended the process: SIGSEGV"),
        (leave, "SystemExit: 3"),
        (hang, "took longer than 1 s"),
        (fill_memory, "MemoryError"),
        (execute, "a command in it was executed"),
        (differ, "something else was loaded"),
    ],
)
def test_a_case_that_fails_is_named_and_kept_and_the_next_one_is_tried(load, why, tmp_path):
    def cases(_seed, _count):
        for number in range(3):
            yield f"case {number}", lambda folder, number=number: (folder / "file").write_text(str(number))

    def load_one(folder):
        (load if (folder / "file").read_text() == "1" else refuse)(folder)

    report = run(Kind("some", cases, load_one), tmp_path, count=3, limit_s=1)
    assert list(report.refused) == ["0: case 0", "2: case 2"]
    assert list(report.failed) == ["1: case 1"]
    assert why in report.failed["1: case 1"]
    assert (tmp_path / "failed/0001/file").read_text() == "1"


def test_strange_values_stay_as_they_are() -> None:
    """A case that changed them in place would change those that follow it."""
    before = repr(HOSTILE)
    for number in range(2_000):
        hostile({"a": [1, {"b": "c"}], "d": {"e": None}}, Random(number))
    assert repr(HOSTILE) == before


def test_a_graph_other_than_its_file_is_seen(tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: pip install -e '.[export]'")
    import kinds_bundles
    import onnx

    kinds_bundles.write(tmp_path, kinds_bundles.whole_export())
    kinds_bundles.load_export(tmp_path)

    def with_another_weight(graph: bytes) -> bytes:
        model = onnx.load_from_string(graph)
        for weight in model.graph.initializer:
            if weight.name == "joiner.output.bias":
                weight.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(weight) + 1, weight.name))
        return model.SerializeToString()

    shutil.rmtree(tmp_path / "again")
    monkeypatch.setattr(kinds_bundles, "read_again", with_another_weight)
    with pytest.raises(AssertionError, match="what is computed is not what the files say"):
        kinds_bundles.load_export(tmp_path)


def test_the_same_seed_gives_the_same_cases(tmp_path):
    from test_fuzz import KINDS

    for kind in KINDS:
        names = [[name for name, _ in islice(kind.cases(seed, 20), 20)] for seed in (1, 1, 2)]
        assert names[0] == names[1] != names[2], kind.name
        assert all(len(found) == 20 for found in names)
