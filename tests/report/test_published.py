"""What others have published stands in RESULTS.md, and a damaged line is named."""

from pathlib import Path

import pytest

from nibble.errors import UserError
from nibble.report import published

LINE = '{"system": "S", "weights": "int4", "speech": "LibriSpeech", "errors": "none", "size": "", "source": "A"}\n'


def test_each_is_a_row_that_is_marked_as_published(tmp_path: Path) -> None:
    path = tmp_path / "published.jsonl"
    path.write_text(LINE + LINE.replace("int4", "int2"), encoding="utf-8")
    text = published.render(published.read(path))
    assert text.startswith("## Published by others, not measured here\n")
    assert [row.split(" | ")[1] for row in text.splitlines()[-2:]] == ["int4", "int2"]


def test_without_a_file_there_is_no_section(tmp_path: Path) -> None:
    assert published.render(published.read(tmp_path / "none.jsonl")) == ""


@pytest.mark.parametrize("line", ["no json", LINE.replace("source", "origin"), LINE.replace('"int4"', "4")])
def test_a_line_that_is_none_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "published.jsonl"
    path.write_text(LINE + line, encoding="utf-8")
    with pytest.raises(UserError, match="line 2 is not a published result"):
        published.read(path)
