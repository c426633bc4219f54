import json
import multiprocessing
from dataclasses import asdict, fields, replace
from pathlib import Path

import pytest
from example_record import RECORD

from nibble.errors import UserError
from nibble.runs.records import Record, append, from_plain, read


def test_round_trip_and_order_of_fields(tmp_path: Path) -> None:
    path = tmp_path / "new" / "records.jsonl"
    records = [RECORD, replace(RECORD, seed=2)]
    for record in records:
        append(path, record)
    assert read(path) == records
    lines = path.read_text().splitlines()
    assert len(lines) == 2
    assert list(json.loads(lines[0])) == [field.name for field in fields(Record)]


def add_many(path: Path, seed: int) -> None:
    for number in range(1, 31):
        append(path, replace(RECORD, seed=seed, parameters=number))


def test_processes_that_add_at_once_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=add_many, args=(path, seed)) for seed in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    found = [(record.seed, record.parameters) for record in read(path)]
    assert sorted(found) == [(seed, number) for seed in range(4) for number in range(1, 31)]


def test_the_same_record_is_added_once(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    for record in (RECORD, RECORD, from_plain(json.loads(json.dumps(asdict(RECORD))))):
        append(path, record)
    assert read(path) == [RECORD]


def test_a_rate_that_is_no_number_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        append(tmp_path / "r.jsonl", replace(RECORD, wer=float("inf")))
    assert not (tmp_path / "r.jsonl").exists()


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot be added to .*records=FILE"):
        append(tmp_path / "file" / "records.jsonl", RECORD)


def test_a_full_disk() -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    with pytest.raises(UserError, match="No space left"):
        append(Path("/dev/full"), RECORD)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"wer": "0.25"}, "wer is '0.25'; give a number"),
        ({"seed": None}, "seed is None; give a whole number"),
        ({"utterance_errors": [["a", 1]]}, r"utterance_errors\[0\] is \['a', 1\]; give 3 values"),
        ({"utterance_errors": [["a", -1, 2]]}, "utterance 'a' has -1 errors in 2 words"),
        ({"parameters": 0}, "parameters is 0, which is less than 1"),
        ({"method": "magic"}, "method is 'magic'; give one of float, ptq"),
        ({"backend": "native"}, "backend is 'native'; it must end with the search"),
        ({"sead": 1}, "no option 'sead'; nearest: seed"),
    ],
)
def test_a_line_with_a_value_that_cannot_be(tmp_path: Path, change: dict, message: str) -> None:
    path = tmp_path / "r.jsonl"
    path.write_text(json.dumps({**json.loads(json.dumps(asdict(RECORD))), **change}) + "\n")
    with pytest.raises(UserError, match=f"r.jsonl, line 1 is not a record of this version: {message}.*; delete that"):
        read(path)


def test_messages_of_read(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    with pytest.raises(UserError, match=r"no records at .*evaluate\.py"):
        read(path)
    append(path, RECORD)
    with path.open("a") as file:
        file.write('{"wer": ')
    with pytest.raises(UserError, match=r"line 2 is not a record of this version: .*; delete that line"):
        read(path)
    path.write_text('{"wer": 0.1}\n')
    with pytest.raises(UserError, match="line 1 is not a record of this version"):
        read(path)


def test_a_last_line_without_its_end_is_not_lost_with_the_next(tmp_path):
    path = tmp_path / "records.jsonl"
    append(path, RECORD)
    path.write_text(path.read_text().rstrip("\n"))
    append(path, RECORD)  # it is there already
    other = replace(RECORD, seed=RECORD.seed + 1)
    append(path, other)
    assert read(path) == [RECORD, other]
