"""The best system of one run under a budget, from measured errors."""

from dataclasses import replace
from pathlib import Path

import pytest
from example_record import RECORD

from nibble.errors import UserError
from nibble.hardware import HardwareConfig
from nibble.memory import Footprint
from nibble.runs.records import read
from nibble.sensitivity.options import SensitivityConfig
from nibble.sensitivity.systems import Search, System, has_systems, search

SIZES = ("model.layers=2", "model.sizes=[{name:small,layers:1}]")


def options(run: Path | str, **budget: float) -> SensitivityConfig:
    return SensitivityConfig(str(run), plot="", hardware=HardwareConfig(threads=1, workers=0), **budget)


def test_every_size_is_measured_recorded_and_the_best_within_the_budget_exported(write_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = write_run(options=SIZES)
    found = search(options(run))
    assert {one.record.model for one in found.systems} == {"tiny", "tiny-small"}
    assert [one.record for one in found.systems] == sorted(
        read(Path("runs/records.jsonl")), key=lambda record: (record.wer, record.bundle_bytes)
    )
    sizes = {one.size: one.record.bundle_bytes for one in found.systems}
    tight = Search(found.systems, options(run, target_bytes=sizes["small"]))
    assert tight.best.size == "small"
    assert tight.verdict() == f"python -m nibble.export checkpoint={run} size=small quant=float"
    assert sorted(row[-1] for row in tight.table().rows) == ["best", "too much: bytes"]


def test_the_fewest_errors_of_those_within_every_budget(example_systems):
    def best(**budget: float) -> str | None:
        found = Search(example_systems, options("runs/x", **budget)).best
        return None if found is None else found.record.quant

    assert best() == "float"
    assert best(target_bytes=500) == "int8"
    assert best(target_bytes=500, max_rtf=0.015) == "int4"
    assert best(max_memory_bytes=2_000_000) == "int4"
    assert best(max_rtf=0.001) is None
    said = Search(example_systems, options("runs/x", max_rtf=0.001)).verdict()
    assert said.startswith(
        "none of 3 systems keeps the budget; the least of each cost: 300 bytes, RTF 0.0100, 1,000,000"
    )


@pytest.fixture
def example_systems():
    def system(quant: str, wer: float, size_bytes: int, rtf: float, ran_bytes: int) -> System:
        memory = Footprint(loaded_bytes=1, ran_bytes=ran_bytes, peak_bytes=1, load_s=1.0)
        return System(None, replace(RECORD, quant=quant, wer=wer, bundle_bytes=size_bytes, rtf=rtf, memory=memory))

    return [
        system("float", 0.05, 1_000, 0.02, 4_000_000),
        system("int8", 0.06, 400, 0.02, 3_000_000),
        system("int4", 0.07, 300, 0.01, 1_000_000),
    ]


def test_a_run_with_one_system_has_nothing_to_choose_from(write_run):
    run = write_run()
    assert not has_systems(options(run, target_bytes=200_000))
    with pytest.raises(UserError, match="max_rtf and max_memory_bytes choose among the systems of one run"):
        has_systems(options(run, max_rtf=0.1))
    sizes = write_run(options=SIZES)
    assert has_systems(options(sizes, max_rtf=0.1))
    assert not has_systems(options(sizes)), "its layers can be ranked"
    with pytest.raises(UserError, match="average_bits=4 is for the layers of a float run"):
        search(options(sizes, average_bits=4.0))
