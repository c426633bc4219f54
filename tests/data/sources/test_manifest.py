"""Reading a part: what is good becomes cuts, what is bad is named, counted and limited."""

import logging
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

from nibble.conventions import SAMPLE_RATE_HZ
from nibble.data.audio import decode, source
from nibble.data.conversion import check
from nibble.data.options import TextCase
from nibble.data.sources import checking
from nibble.data.sources.librispeech import LibriSpeech
from nibble.data.sources.part import Reading, read_part
from nibble.errors import UserError


@pytest.fixture
def corpus(tiny_corpus: Path, tmp_path: Path) -> Path:
    """A copy of dev-tiny to spoil: speakers 11 and 12, chapter 1, utterances 0000 and 0001."""
    shutil.copytree(tiny_corpus / "LibriSpeech" / "dev-tiny", tmp_path / "corpus" / "dev-tiny")
    return tmp_path / "corpus"


def chapter(corpus: Path) -> Path:
    return corpus / "dev-tiny" / "11" / "1"


def test_good_part(corpus: Path, tmp_path: Path) -> None:
    cuts = read_part(LibriSpeech(corpus / "dev-tiny"), tmp_path)
    assert list(cuts.ids) == ["11-1-0000", "11-1-0001", "12-1-0000", "12-1-0001"]
    cut = cuts["11-1-0001"]
    assert cut.sampling_rate == SAMPLE_RATE_HZ
    assert cut.num_samples == len(decode(source(cut)))
    assert cut.supervisions[0].speaker == "11"
    assert f"11-1-0001 {cut.supervisions[0].text}" in (chapter(corpus) / "11-1.trans.txt").read_text()
    np.testing.assert_array_equal(cut.load_audio()[0], decode(source(cut)))


def test_text_has_single_spaces_and_composed_characters_in_the_case_asked_for(corpus: Path, tmp_path: Path) -> None:
    (chapter(corpus) / "11-1.trans.txt").write_text("\ufeff11-1-0000  yes\tNo \r\n\n11-1-0001 Caf\u0065\u0301\n")
    cuts = read_part(LibriSpeech(corpus / "dev-tiny"), tmp_path)
    assert cuts["11-1-0000"].supervisions[0].text == "yes No"
    for case, text in ((TextCase.keep, "Caf\u00e9"), (TextCase.upper, "CAF\u00c9"), (TextCase.lower, "caf\u00e9")):
        cuts = read_part(LibriSpeech(corpus / "dev-tiny"), tmp_path, Reading(text_case=case))
        assert cuts["11-1-0001"].supervisions[0].text == text


def test_checked_once_until_a_file_changes(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checked = []
    monkeypatch.setattr(checking, "check", lambda path: checked.append(path) or check(path))
    first = read_part(LibriSpeech(corpus / "dev-tiny"), tmp_path)
    assert len(checked) == 4
    assert list(read_part(LibriSpeech(corpus / "dev-tiny"), tmp_path)) == list(first)
    assert len(checked) == 4
    with (chapter(corpus) / "11-1.trans.txt").open("a") as file:
        file.write("\n")
    read_part(LibriSpeech(corpus / "dev-tiny"), tmp_path)
    assert len(checked) == 8


def spoil_audio(corpus: Path) -> str:
    (chapter(corpus) / "11-1-0001.flac").unlink()
    return "11-1-0001: transcript without audio"


def spoil_transcript(corpus: Path) -> str:
    path = chapter(corpus) / "11-1.trans.txt"
    path.write_text(path.read_text().splitlines()[0] + "\n")
    return "11-1-0001: audio without transcript"


def spoil_text(corpus: Path) -> str:
    path = chapter(corpus) / "11-1.trans.txt"
    path.write_text(path.read_text().splitlines()[0] + "\n11-1-0001\n")
    return "11-1-0001: empty transcript"


def spoil_flac(corpus: Path) -> str:
    path = chapter(corpus) / "11-1-0001.flac"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return "11-1-0001: .*11-1-0001.flac is not audio that can be read, or is truncated"


def spoil_header(corpus: Path) -> str:
    (chapter(corpus) / "11-1-0001.flac").write_bytes(b"not audio")
    return "11-1-0001: .*11-1-0001.flac is not audio that can be read, or is truncated"


def spoil_length(corpus: Path) -> str:
    soundfile.write(chapter(corpus) / "11-1-0001.flac", np.zeros(300), SAMPLE_RATE_HZ)
    return "11-1-0001: less than one frame of audio .300 samples"


def spoil_id(corpus: Path) -> str:
    with (chapter(corpus) / "11-1.trans.txt").open("a") as file:
        file.write("11-1-0001 GO\n")
    return "11-1-0001: two transcripts"


SPOILERS = [spoil_audio, spoil_transcript, spoil_text, spoil_flac, spoil_header, spoil_length, spoil_id]


@pytest.mark.parametrize("spoil", SPOILERS)
def test_bad_utterance_stops_or_is_left_out(
    spoil, corpus: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    problem = spoil(corpus)
    with pytest.raises(UserError, match=f"1 utterances can't be used.*data.max_bad_utterances=0.*{problem}"):
        read_part(LibriSpeech(corpus / "dev-tiny"), tmp_path)
    with caplog.at_level(logging.WARNING):
        cuts = read_part(LibriSpeech(corpus / "dev-tiny"), tmp_path, Reading(max_bad_utterances=1))
    assert list(cuts.ids) == ["11-1-0000", "12-1-0000", "12-1-0001"]
    assert re.search(problem, caplog.text)


def test_all_bad(corpus: Path, tmp_path: Path) -> None:
    for path in corpus.rglob("*.flac"):
        path.unlink()
    with pytest.raises(UserError, match=r"no utterance of .*dev-tiny can be used"):
        read_part(LibriSpeech(corpus / "dev-tiny"), tmp_path, Reading(max_bad_utterances=100))


@pytest.mark.parametrize("lost_bytes", [1, 50, 1000])
def test_the_smallest_truncation_is_noticed(lost_bytes: int, tiny_corpus: Path, tmp_path: Path) -> None:
    whole = next((tiny_corpus / "LibriSpeech").rglob("*.flac"))
    assert check(whole).samples > SAMPLE_RATE_HZ
    (tmp_path / "short.flac").write_bytes(whole.read_bytes()[:-lost_bytes])
    with pytest.raises(UserError, match="truncated"):
        check(tmp_path / "short.flac")


def test_other_rates_and_channels_are_converted_and_named(
    corpus: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    time_s = np.arange(8000) / 8000
    tone = 0.25 * np.sin(2 * np.pi * 440 * time_s)
    soundfile.write(chapter(corpus) / "11-1-0000.flac", tone, 8000)
    soundfile.write(chapter(corpus) / "11-1-0001.flac", np.stack([tone, 3 * tone], axis=1), SAMPLE_RATE_HZ)
    with caplog.at_level(logging.WARNING):
        cuts = read_part(LibriSpeech(corpus / "dev-tiny"), tmp_path)
    (message,) = caplog.messages
    assert "2 utterances converted to 16 kHz mono: 11-1-0000: 8000 Hz; 11-1-0001: 2 channels" in message
    resampled, mixed = (decode(source(cuts[name])) for name in ("11-1-0000", "11-1-0001"))
    expected = 0.25 * np.sin(2 * np.pi * 440 * np.arange(SAMPLE_RATE_HZ) / SAMPLE_RATE_HZ)
    np.testing.assert_allclose(resampled[500:-500], expected[500:-500], atol=2e-3)
    np.testing.assert_allclose(mixed, 2 * tone, atol=1e-4)


def test_opus_and_wav(corpus: Path, tmp_path: Path) -> None:
    for path, suffix in zip(sorted(chapter(corpus).glob("*.flac")), (".wav", ".opus"), strict=True):
        container = {".wav": "WAV", ".opus": "OGG"}[suffix]
        coding = {".wav": "PCM_16", ".opus": "OPUS"}[suffix]
        soundfile.write(path.with_suffix(suffix), decode(path), SAMPLE_RATE_HZ, format=container, subtype=coding)
        path.unlink()
    cuts = read_part(LibriSpeech(corpus / "dev-tiny"), tmp_path)
    assert len(cuts) == 4
    for cut in cuts:
        assert len(decode(source(cut))) == cut.num_samples


def test_missing_and_empty_folders(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no folder .*train-x"):
        read_part(LibriSpeech(tmp_path / "train-x"), tmp_path)
    (tmp_path / "train-x").mkdir()
    with pytest.raises(UserError, match="neither audio nor transcripts; LibriSpeech layout is"):
        read_part(LibriSpeech(tmp_path / "train-x"), tmp_path)


def test_transcript_in_another_encoding(corpus: Path, tmp_path: Path) -> None:
    (chapter(corpus) / "11-1.trans.txt").write_bytes("11-1-0000 CAFÉ\n".encode("latin-1"))
    with pytest.raises(UserError, match=r"11-1-0000: text that is not UTF-8 .convert the file: iconv"):
        read_part(LibriSpeech(corpus / "dev-tiny"), tmp_path)


def test_real_speech(shared_data: Path, tmp_path: Path) -> None:
    cuts = read_part(LibriSpeech(shared_data / "digits" / "LibriSpeech" / "dev-digits"), tmp_path)
    assert len(cuts) == 199
    assert sum(len(cut.supervisions[0].text.split()) for cut in cuts) == 900
