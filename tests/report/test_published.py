"""What others have published stands in RESULTS.md, and a damaged line is named."""

import json
from pathlib import Path

import pytest

from nibble.errors import UserError
from nibble.report import published

VALUES = {"system": "S", "weights": "int4", "speech": "LibriSpeech", "errors": "none", "size": "", "source": "A"}
LINE = json.dumps({**VALUES, "comparable": False}) + "\n"


def test_each_is_a_row_that_is_marked_as_published(tmp_path: Path) -> None:
    path = tmp_path / "published.jsonl"
    path.write_text(LINE + LINE.replace("int4", "int2"), encoding="utf-8")
    text = published.render(published.read(path))
    assert text.startswith("## Published by others, not measured here\n")
    assert [row.split(" | ")[2] for row in text.splitlines()[-2:]] == ["int4", "int2"]


def test_what_compares_is_marked_and_stands_beside_ours_on_the_same_speech(tmp_path: Path) -> None:
    measured = {**VALUES, "comparable": True, "rates": {"test-clean": 2.5}, "size_bytes": 1000}
    path = tmp_path / "published.jsonl"
    path.write_text(json.dumps(measured) + "\n" + LINE, encoding="utf-8")
    found = published.read(path)
    assert [line.split(" | ")[0] for line in published.render(found).splitlines()[-2:]] == ["| C", "| "]
    point = {"system": "S, int4", "bytes": 1000, "wer": 2.5}
    assert published.points(found, "LibriSpeech", "test-clean") == [point]
    assert published.points(found, "LibriSpeech", "test-other") == []
    assert published.points(found, "digits", "test-clean") == []


def test_those_of_the_repository_are_read() -> None:
    found = published.read(Path(__file__).parents[2] / "results" / "published.jsonl")
    assert len({(one.system, one.weights, one.speech) for one in found}) == len(found) > 15
    assert {one.comparable for one in found} == {True, False}
    assert len(published.points(found, "librispeech", "test-clean")) >= 3


def test_without_a_file_there_is_no_section(tmp_path: Path) -> None:
    assert published.render(published.read(tmp_path / "none.jsonl")) == ""


@pytest.mark.parametrize("line", ["no json", LINE.replace("source", "origin"), LINE.replace('"int4"', "4")])
def test_a_line_that_is_none_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "published.jsonl"
    path.write_text(LINE + line, encoding="utf-8")
    with pytest.raises(UserError, match="line 2 is not a published result"):
        published.read(path)
