"""Joined utterances last as long as asked for and have the same words."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from nibble.commands import lengthen as command
from nibble.conventions import SAMPLE_RATE_HZ
from nibble.data.corpora import lengthened
from nibble.data.corpora.lengthened import write_lengthened
from nibble.data.sources.part import read_part
from nibble.data.sources.recognise import source_of


def texts(folder: Path, cache: Path) -> dict[str, list[str]]:
    """Words of each speaker in order."""
    found: dict[str, list[str]] = {}
    for cut in read_part(source_of(folder), cache):
        found.setdefault(cut.supervisions[0].speaker, []).extend(cut.supervisions[0].text.split())
    return found


@pytest.fixture(scope="module")
def long(tiny_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """train-tiny, six short utterances a speaker, joined to 2, 3 and 60 seconds."""
    corpus = tmp_path_factory.mktemp("long") / "tiny"
    corpus.symlink_to(tiny_corpus)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lengthened, "DURATIONS_S", (2, 3, 60))
        patch.chdir(corpus.parent)
        assert command.main([str(corpus), "part=train-tiny"]) == 0
    return corpus.with_name("tiny-long")


def test_all_words_are_there_and_all_but_the_last_last_long_enough(
    long: Path, tiny_corpus: Path, tmp_path: Path
) -> None:
    said = texts(tiny_corpus / "LibriSpeech" / "train-tiny", tmp_path)
    for seconds in (2, 3, 60):
        part = long / "LibriSpeech" / f"test-{seconds}s"
        assert texts(part, tmp_path) == said
        for speaker in said:
            files = sorted((part / speaker).rglob("*.flac"))
            durations_s = [soundfile.info(file).duration for file in files]
            assert all(duration_s >= seconds for duration_s in durations_s[:-1])
            assert (len(files) == 1) is (seconds == 60)


def test_the_samples_are_those_of_the_utterances(long: Path, tiny_corpus: Path) -> None:
    def of(corpus: Path, part: str) -> list[np.ndarray]:
        files = sorted((corpus / "LibriSpeech" / part / "1").rglob("*.flac"))
        return [soundfile.read(file, dtype="int16")[0] for file in files]

    spoken, joined = of(tiny_corpus, "train-tiny"), of(long, "test-60s")
    (whole,) = joined
    start = 0
    for samples in spoken:
        assert np.array_equal(whole[start : start + len(samples)], samples)
        start += len(samples) + round(0.3 * SAMPLE_RATE_HZ)
    assert start - round(0.3 * SAMPLE_RATE_HZ) == len(whole)


def test_what_is_there_stays(long: Path, tiny_corpus: Path, tmp_path: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in long.rglob("*")}
    assert write_lengthened(long.with_name("tiny"), "train-tiny", tmp_path) == long
    assert {path: path.stat().st_mtime_ns for path in long.rglob("*")} == before
