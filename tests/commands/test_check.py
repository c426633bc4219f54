"""What `python -m nibble.data.check` says of a corpus."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

from nibble.commands import check


@pytest.fixture
def corpus(tiny_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    shutil.copytree(tiny_corpus / "LibriSpeech", tmp_path / "corpus")
    return tmp_path / "corpus"


def test_parts_problems_twins_and_advice(corpus: Path, capsys: pytest.CaptureFixture) -> None:
    dev, test = corpus / "dev-tiny/11/1", corpus / "test-tiny/21/1"
    shutil.copy(dev / "11-1-0000.flac", test / "21-1-0000.flac")  # heard in dev and test
    (dev / "11-1-0001.flac").unlink()
    soundfile.write(corpus / "train-tiny/1/1/1-1-0000.flac", np.zeros(40 * 16_000), 16_000)
    assert check.main([str(corpus), "page=page.html"]) == 0
    said = capsys.readouterr().out
    assert "dev-tiny (LibriSpeech)" in said
    assert "3 utterances, 0.00 h" in said
    assert "2 speakers: " in said
    assert "transcript without audio" in said
    assert "the same audio is in several parts, 1 times: dev-tiny/11-1-0000 = test-tiny/21-1-0000" in said
    assert "data.max_bad_utterances=1" in said
    assert "data.max_duration_s=41" in said
    page = Path("page.html").read_text(encoding="utf-8")
    assert "length in seconds" in page


def test_one_part_in_a_file(corpus: Path, capsys: pytest.CaptureFixture) -> None:
    audio = [str(path) for path in sorted(corpus.rglob("*.flac"))[:2]]
    rows = [{"wav": audio[0], "text": "ALL CAPITALS"}, {"wav": audio[1], "text": "small letters", "lang": "en"}]
    (corpus / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert check.main([str(corpus / "mine.jsonl"), "columns=audio:wav"]) == 0
    said = capsys.readouterr().out
    assert "mine.jsonl (Manifest)" in said
    assert "2 languages: (not said) (1), en (1)" in said
    assert "data.text_case=lower: 1 utterances are in capitals and 1 in small letters" in said


def test_nothing_there(corpus: Path, capsys: pytest.CaptureFixture) -> None:
    assert check.main(["absent"]) == 1
    assert "there is no folder or file absent" in capsys.readouterr().err
