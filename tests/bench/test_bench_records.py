import json
from dataclasses import fields, replace
from pathlib import Path

import pytest

from nibble.bench.records import Measurement, append, cells, read
from nibble.errors import UserError

INT4 = Measurement(
    bench="size",
    case="conformer_l",
    contender="int4",
    baseline="float32",
    ratio=7.875,
    median_ms=None,
    threads=2,
    hardware="a CPU, 2 cores",
    commit="0" * 40,
    command="python -m nibble.bench size",
    bytes=60_000_000,
)


def test_round_trip_and_order_of_fields(tmp_path: Path) -> None:
    path = tmp_path / "new" / "bench.jsonl"
    assert read(path) == []
    timed = replace(INT4, bench="encoder", median_ms=3.5, bytes=None)
    for measurement in (INT4, timed):
        append(path, measurement)
    assert read(path) == [INT4, timed]
    lines = path.read_text().splitlines()
    assert list(json.loads(lines[0])) == [field.name for field in fields(Measurement)]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2 is not a measurement: .*delete that line"),
        ('{"bench": "size"}', "no value for case, contender"),
        (json.dumps({**vars(INT4), "speed": 3}), "no option 'speed'; nearest: "),
        (json.dumps({**vars(INT4), "ratio": "7"}), "ratio is '7'; give a number"),
    ],
)
def test_what_is_no_measurement(tmp_path: Path, line: str, message: str) -> None:
    append(tmp_path / "bench.jsonl", INT4)
    with (tmp_path / "bench.jsonl").open("a") as file:
        file.write(f"{line}\n")
    with pytest.raises(UserError, match=message):
        read(tmp_path / "bench.jsonl")


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot be added to .*give another file: records=FILE"):
        append(tmp_path / "file" / "bench.jsonl", INT4)


def test_columns_without_a_value_are_left_out() -> None:
    timed = replace(INT4, median_ms=3.456)
    assert cells([INT4]) == [
        ["case", "contender", "bytes", "ratio"],
        ["conformer_l", "int4 against float32", "60,000,000", "7.88"],
    ]
    assert cells([INT4, timed])[2] == ["conformer_l", "int4 against float32", "60,000,000", "3.46", "7.88"]
