from dataclasses import replace
from pathlib import Path

import pytest
from example_record import RECORD

from nibble.bench.records import Measurement, append
from nibble.commands.report import main
from nibble.report.benchmarks import render
from nibble.runs import records

INT4 = Measurement("size", "conformer_l", "int4", "float32", 7.875, None, 2, "a CPU", "0" * 40, "python -m b", 60)


def test_a_table_for_each_benchmark_and_the_last_of_equal_measurements() -> None:
    stale, pruned = replace(INT4, ratio=1.0, bytes=480), replace(INT4, contender="int4_24", ratio=10.5, bytes=45)
    other = replace(INT4, bench="encoder", case="10 s", bytes=None, median_ms=2.0, commit="1" * 40 + "+dirty")
    other = replace(other, clock="cpu", wall_ms=3.0, rounds=5)
    page = render([stale, INT4, other, pruned])
    assert page.index("## size") < page.index("## encoder")
    assert "| conformer_l | int4 | 60 | 7.88 |\n|  | int4_24 | 45 | 10.50 |\n" in page, "a case is named once"
    assert "| case | contender | bytes | ratio to float32 |" in page
    assert "| 10 s | int4 | 2.00 | 7.88 |" in page
    assert page.count("- a CPU; `python -m b`") == 2, "once for each benchmark"
    assert "Bytes of a whole bundle" in page
    assert render([]) == ""


def test_the_page_follows_the_benchmarks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    records.append(Path("results/records.jsonl"), RECORD)
    assert main([]) == 0
    assert main(["check=true"]) == 0
    append(Path("results/bench.jsonl"), INT4)
    assert main(["check=true"]) == 1
    assert "BENCHMARKS.md is not what results/records.jsonl and results/bench.jsonl say" in capsys.readouterr().err
    assert main([]) == 0
    assert main(["check=true"]) == 0
    page = Path("RESULTS.md").read_text()
    assert page.endswith("\n")
    assert "## digits: dev-digits of digits" in page
    assert "## size" in Path("BENCHMARKS.md").read_text()


def test_where_there_are_means_they_stand_alone_with_a_column_for_each_baseline() -> None:
    layer = replace(INT4, bench="gemm", case="1 row, 512 to 512", bytes=None, ratio=0.25)
    mean = replace(layer, case="1 row, mean of 4 shapes", ratio=0.18)
    page = render([layer, mean, replace(mean, baseline="torch int8", ratio=0.33)])
    assert "| 1 row, mean of 4 shapes | int4 | 0.18 | 0.33 |" in page
    assert "512 to 512" not in page


def test_the_published_pages_are_short_enough_to_be_read() -> None:
    for name in ("RESULTS.md", "BENCHMARKS.md"):
        assert (Path(__file__).parents[2] / name).stat().st_size <= 25_000


def test_what_was_not_measured_on_a_gpu() -> None:
    fused = replace(INT4, bench="loss", case="B 16: time, 1 thread", bytes=None, median_ms=2.0)
    assert "On a GPU: not measured." in render([fused])
    assert "On a GPU: not measured." not in render([fused, replace(fused, case="B 16: time, GPU")])
    assert "GPU" not in render([INT4])
