import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import pytest

from nibble.report.comparison import Comparison, compare
from nibble.report.formats import Format, written
from nibble.report.matching import Measurement, match
from nibble.report.runs import find_runs
from nibble.runs.records import read


@pytest.fixture
def comparison(finished_runs: Path) -> Comparison:
    runs, _ = find_runs([finished_runs / "runs"])
    return compare(match(runs, read(finished_runs / "runs" / "records.jsonl")))


def test_markdown_has_a_row_for_each_system(comparison: Comparison) -> None:
    lines = written(comparison, Format.md).splitlines()
    assert lines[0].startswith("dev-tiny of speech")
    assert [line.split("|")[1].strip() for line in lines[4:]] == ["float", "int4", "int4"]


def test_csv_and_json_have_the_same_numbers(comparison: Comparison) -> None:
    table = list(csv.DictReader(io.StringIO(written(comparison, Format.csv))))
    found = json.loads(written(comparison, Format.json))
    assert found["speech"]["part"] == "dev-tiny"
    assert len(table) == len(found["systems"]) == 3
    for line, system, row in zip(table, found["systems"], comparison.rows, strict=True):
        assert float(line["wer_percent"]) == system["wer_percent"] == 100 * row.wer[0]
        assert int(line["bundle_bytes"]) == system["bundle_bytes"] == row.last.bundle_bytes
        assert line["seeds"] == "1"
        assert system["seeds"] == [1]
    assert table[0]["minus_float_points"] == ""
    assert found["systems"][0]["minus_float_points"] is None


def test_latex_escapes_what_is_special_in_it(comparison: Comparison) -> None:
    row = comparison.rows[1]
    record = replace(row.last, quant="int4_24&co")
    text = written(compare([Measurement(row.runs[0], record)]), Format.latex)
    assert r"int4\_24\&co & " in text
    assert text.count(r" \\") == 2
    assert text.index(r"\toprule") < text.index(r"\midrule") < text.index(r"\bottomrule")
    assert "%, 95" not in text.split("\n", 1)[1].replace(r"\%", "")
