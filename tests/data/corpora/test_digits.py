"""Connected digits from a stand-in for the free-spoken-digit-dataset: a recording is a tone that says what it is."""

import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile
from lhotse.recipes.librispeech import prepare_librispeech

from nibble.conventions import SAMPLE_RATE_HZ
from nibble.data.corpora.digits import PARTS, WORDS, build_digits, find_recordings, quietest, read_recording
from nibble.data.corpora.layout import content_hash
from nibble.errors import UserError

FSDD_RATE = 8_000
TONE_S, SILENCE_S = 0.1, 0.02
DURATION_S = TONE_S + SILENCE_S
SPEAKERS = ("george", "theo")


def pitch_hz(digit: int, index: int) -> int:
    """A pitch of its own for each recording of a speaker, 20 Hz apart."""
    return 400 + 20 * (digit * 8 + index)


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Recordings 0 to 7 of each digit by two speakers."""
    folder = tmp_path_factory.mktemp("fsdd")
    (folder / "recordings").mkdir()
    time_s = np.arange(round(TONE_S * FSDD_RATE)) / FSDD_RATE
    silence = np.zeros(round(SILENCE_S * FSDD_RATE))
    for speaker in SPEAKERS:
        for digit in range(10):
            for index in range(8):
                tone = 0.3 * np.sin(2 * np.pi * pitch_hz(digit, index) * time_s)
                recording = np.concatenate([tone, silence])
                soundfile.write(folder / "recordings" / f"{digit}_{speaker}_{index}.wav", recording, FSDD_RATE)
    (folder / "recordings" / ".DS_Store").write_bytes(b"")
    return folder


@pytest.fixture(scope="module")
def corpus(clone: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_digits(clone, tmp_path_factory.mktemp("data"))


def utterances(corpus: Path, part: str) -> list[tuple[str, np.ndarray]]:
    """(text, samples) of every utterance."""
    return [
        (line.split(" ", 1)[1], soundfile.read(path.parent / f"{line.split()[0]}.flac")[0])
        for path in sorted((corpus / "LibriSpeech" / part).rglob("*.trans.txt"))
        for line in path.read_text().splitlines()
    ]


def heard(samples: np.ndarray) -> list[int]:
    """The pitch of each tone in Hz, rounded to 20, in order."""
    loud = np.convolve(np.abs(samples) > 0.05, np.ones(160), "same") > 0
    edges = np.flatnonzero(np.diff(np.concatenate([[0], loud, [0]])))
    pitches = []
    for start, end in zip(edges[::2], edges[1::2], strict=True):
        spectrum = np.abs(np.fft.rfft(samples[start:end], n=SAMPLE_RATE_HZ))
        pitches.append(round(int(spectrum.argmax()) / 20) * 20)
    return pitches


@pytest.mark.parametrize("part", PARTS)
def test_audio_says_what_the_transcript_says_with_recordings_of_its_part(corpus: Path, part: str) -> None:
    indices, passes = PARTS[part]
    used: Counter[int] = Counter()
    for text, samples in utterances(corpus, part):
        words, pitches = text.split(), heard(samples)
        assert 2 <= len(words) <= 7
        assert len(pitches) == len(words)
        for word, pitch in zip(words, pitches, strict=True):
            digit, index = divmod((pitch - 400) // 20, 8)
            assert WORDS[digit] == word
            assert index in indices
        used.update(pitches)
        mean_gap_s = (len(samples) / SAMPLE_RATE_HZ - DURATION_S * len(words)) / (len(words) - 1)
        assert 0.029 < mean_gap_s < 0.151
    expected = {pitch_hz(digit, index): passes * len(SPEAKERS) for digit in range(10) for index in indices if index < 8}
    assert used == expected


def test_corpus_is_read_by_lhotse(corpus: Path) -> None:
    manifests = prepare_librispeech(corpus / "LibriSpeech", dataset_parts=list(PARTS))
    for part in PARTS:
        recordings = manifests[part]["recordings"]
        assert len(recordings) == len(utterances(corpus, part)) > 0
        assert {(recording.sampling_rate, recording.num_channels) for recording in recordings} == {(SAMPLE_RATE_HZ, 1)}
    speakers = (corpus / "LibriSpeech" / "SPEAKERS.TXT").read_text()
    assert re.findall(r"\d+ +\| M \| train-digits +\| +[\d.]+ \| (\w+)", speakers) == list(SPEAKERS)


def test_same_clone_same_corpus_and_made_once(clone: Path, corpus: Path, tmp_path: Path) -> None:
    again = build_digits(clone, tmp_path)
    assert content_hash(again) == content_hash(corpus)
    assert build_digits(tmp_path / "gone", tmp_path) == again


def test_gaps_are_as_loud_as_the_quietest_moment() -> None:
    loud, quiet = np.full(1600, 1000, dtype=np.int16), np.full(160, 20, dtype=np.int16)
    assert quietest(np.concatenate([loud, quiet, loud])) == 20
    assert quietest(loud[:10]) == 0


def test_folder_that_is_no_clone(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data.fsdd_dir: no folder .*recordings; give a clone of https"):
        build_digits(tmp_path, tmp_path / "data")
    (tmp_path / "recordings").mkdir()
    (tmp_path / "recordings" / "notes.txt").write_text("")
    with pytest.raises(UserError, match=r"no file like 7_jackson_32.wav"):
        build_digits(tmp_path, tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_clone_with_holes(tmp_path: Path) -> None:
    (tmp_path / "recordings").mkdir()
    for digit in range(10):
        for index in (0, 2, 5) if digit != 7 else (0, 5):
            (tmp_path / "recordings" / f"{digit}_theo_{index}.wav").write_bytes(b"")
    with pytest.raises(UserError, match=r"no SEVEN by theo for dev-digits \(recordings 2 to 4\)"):
        find_recordings(tmp_path)


def test_damaged_recording_is_named(tmp_path: Path) -> None:
    path = tmp_path / "0_theo_0.wav"
    path.write_bytes(b"RIFF")
    with pytest.raises(UserError, match=r"0_theo_0.wav is not audio .*; clone the data set anew"):
        read_recording(path)
