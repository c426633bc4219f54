"""The embedded corpus: who speaks, what is written, and what happens when it can't be."""

import errno
import importlib.util
import json
import logging
from pathlib import Path

import numpy as np
import pytest
import soundfile
from lhotse.recipes.librispeech import prepare_librispeech

from nibble.conventions import SAMPLE_RATE_HZ
from nibble.data.corpora import cast, embedded, grammar, layout
from nibble.data.corpora.embedded import check, content_hash, finish, make_embedded, speak
from nibble.data.corpora.voice import ESPEAK_RATE_HZ
from nibble.errors import UserError
from nibble.writing import make_folder_once

needs_espeak = pytest.mark.skipif(
    importlib.util.find_spec("espeakng_loader") is None, reason="pip install -e .[embedded]"
)
FEW_VOICES = {"train": ["m1", "f1", "Mr serious"], "dev": ["m5"], "test": ["f4"]}


@pytest.fixture
def few_voices(monkeypatch: pytest.MonkeyPatch) -> None:
    """35 voices and 20 + 20 utterances to test on, so that a corpus takes seconds."""
    monkeypatch.setattr(cast, "VARIANTS", FEW_VOICES)
    monkeypatch.setattr(embedded, "EVALUATION_UTTERANCES", 20)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The smallest embedded corpus, with few voices."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cast, "VARIANTS", FEW_VOICES)
        patch.setattr(embedded, "EVALUATION_UTTERANCES", 20)
        return make_embedded(tmp_path_factory.mktemp("data"), 0.1)


def transcripts(corpus: Path, part: str) -> dict[str, str]:
    """Utterance id -> text."""
    lines = [
        line
        for path in sorted((corpus / "LibriSpeech" / part).rglob("*.trans.txt"))
        for line in path.read_text().splitlines()
    ]
    return dict(line.split(" ", 1) for line in lines)


def test_voices_are_many_and_not_shared() -> None:
    voices = {part: cast.voices(part) for part in grammar.PARTS}
    everyone = [voice for part in grammar.PARTS for voice in voices[part]]
    assert len({(voice.accent, voice.variant) for voice in everyone}) == len(everyone) >= 60
    assert len({voice.speaker for voice in everyone}) == len(everyone)
    variants = {part: {voice.variant for voice in voices[part]} for part in grammar.PARTS}
    assert not variants["train"] & (variants["dev"] | variants["test"])
    assert not variants["dev"] & variants["test"]


@needs_espeak
def test_every_voice_exists_in_espeak() -> None:
    """Of an unknown variant eSpeak NG says nothing and speaks in the plain voice."""
    import espeakng_loader

    installed = {path.name for path in (Path(espeakng_loader.get_data_path()) / "voices" / "!v").iterdir()}
    for part in grammar.PARTS:
        assert {voice.variant for voice in cast.voices(part)} <= installed


@needs_espeak
@pytest.mark.parametrize("accent", cast.ACCENTS)
def test_accents_can_be_spoken(accent: str) -> None:
    [samples] = speak(cast.Voice(1, "train", accent, "m1", 150, 50), ["TURN THE LIGHTS OFF"])
    assert 0.8 < len(samples) / ESPEAK_RATE_HZ < 2.5


@needs_espeak
def test_a_fresh_process_says_the_same() -> None:
    voice = cast.voices("train")[0]
    first, second = (speak(voice, ["SET A TIMER", "PLAY SOME JAZZ"]) for _ in range(2))
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, other)


@needs_espeak
def test_unknown_voice_is_named() -> None:
    with pytest.raises(UserError, match=r"eSpeak NG has no voice en-mars\+m1.*data.corpus_dir=DIR"):
        speak(cast.Voice(1, "train", "en-mars", "m1", 150, 50), ["HELLO"])


def test_finish_cuts_silence_resamples_and_sets_the_peak() -> None:
    tone = 5000 * np.sin(2 * np.pi * 440 * np.arange(22_050) / 22_050)
    silence = np.zeros(22_050)
    done = finish(np.concatenate([silence, tone, silence]).astype(np.int16), 22_050, peak_db=-6.0)
    assert len(done) / SAMPLE_RATE_HZ == pytest.approx(1 + 2 * embedded.MARGIN_S, abs=0.01)
    assert np.abs(done).max() == pytest.approx(32767 * 10 ** (-6 / 20), abs=1)
    middle = done[4000 : 4000 + SAMPLE_RATE_HZ // 2].astype(float)
    assert np.abs(np.fft.rfft(middle)).argmax() * 2 == 440


@needs_espeak
def test_corpus_is_read_by_lhotse(corpus: Path) -> None:
    parts = [f"{part}-commands" for part in grammar.PARTS]
    manifests = prepare_librispeech(corpus / "LibriSpeech", dataset_parts=parts)
    facts = json.loads((corpus / "corpus.json").read_text())
    for part in grammar.PARTS:
        recordings = manifests[f"{part}-commands"]["recordings"]
        assert len(recordings) == len(manifests[f"{part}-commands"]["supervisions"]) == facts["utterances"][part]
        assert {(recording.sampling_rate, recording.num_channels) for recording in recordings} == {(SAMPLE_RATE_HZ, 1)}
        assert sum(recording.duration for recording in recordings) == pytest.approx(facts["duration_s"][part], abs=1)
        assert (
            sum(len(text.split()) for text in transcripts(corpus, f"{part}-commands").values()) == facts["words"][part]
        )


@needs_espeak
def test_parts_share_no_speaker_and_no_sentence_but_all_words(corpus: Path) -> None:
    train, dev, test = (transcripts(corpus, f"{part}-commands") for part in grammar.PARTS)
    for one, other in ((train, dev), (train, test), (dev, test)):
        assert not set(one.values()) & set(other.values())
        assert not {name.split("-")[0] for name in one} & {name.split("-")[0] for name in other}
    words = {word for text in train.values() for word in text.split()}
    assert {word for text in [*dev.values(), *test.values()] for word in text.split()} <= words


@needs_espeak
def test_audio_is_loud_unclipped_and_as_long_as_its_text(corpus: Path) -> None:
    for name, text in transcripts(corpus, "train-commands").items():
        speaker, chapter, _ = name.split("-")
        path = corpus / "LibriSpeech" / "train-commands" / speaker / chapter / f"{name}.flac"
        assert soundfile.info(path).subtype == "PCM_16"
        samples, _ = soundfile.read(path, dtype="int16")
        peak = np.abs(samples.astype(int)).max()
        assert 32767 * 10 ** (-12.1 / 20) < peak < 32767 * 10 ** (-0.9 / 20)
        assert 7 < len(text) / (len(samples) / SAMPLE_RATE_HZ) < 30, f"letters a second of {name} {text}"


@needs_espeak
def test_made_once_and_equal_when_made_again(corpus: Path, few_voices: None, tmp_path: Path) -> None:
    before = (corpus / "corpus.json").stat().st_mtime_ns
    assert make_embedded(corpus.parent, 0.1) == corpus
    assert (corpus / "corpus.json").stat().st_mtime_ns == before
    partial = tmp_path / f".{corpus.name}.partial"
    (partial / "LibriSpeech" / "train-commands" / "1001").mkdir(parents=True)  # left by a killed run
    again = make_embedded(tmp_path, 0.1)
    check(again, full=True)
    said = json.loads((again / "corpus.json").read_text())["content_sha256"]
    assert content_hash(again) == content_hash(corpus) == said
    assert not partial.exists()


@needs_espeak
def test_altered_corpus_is_refused(few_voices: None, tmp_path: Path) -> None:
    corpus = make_embedded(tmp_path, 0.1)
    audio = next((corpus / "LibriSpeech").rglob("*.flac"))
    transcript = audio.parent / f"{audio.stem.rsplit('-', 1)[0]}.trans.txt"
    for path, altered in ((audio, audio.read_bytes()[:-100]), (transcript, b"1-1-0000 NO\n")):
        original = path.read_bytes()
        path.write_bytes(altered)
        with pytest.raises(UserError, match=r"not those that were made. Remove .* made again"):
            make_embedded(tmp_path, 0.1)
        path.write_bytes(original)
    make_embedded(tmp_path, 0.1)

    middle = len(audio.read_bytes()) // 2
    audio.write_bytes(audio.read_bytes()[:middle] + b"nibble" + audio.read_bytes()[middle + 6 :])
    check(corpus)
    with pytest.raises(UserError, match=r"not those that were made"):
        check(corpus, full=True)
    (corpus / "corpus.json").unlink()
    with pytest.raises(UserError, match=r"corpus.json is missing or damaged"):
        make_embedded(tmp_path, 0.1)


def test_another_platforms_samples_are_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "LibriSpeech").mkdir()
    facts = {"hours": embedded.DEFAULT_HOURS, "content_sha256": "0", "files_sha256": layout.files_hash(tmp_path)}
    (tmp_path / "corpus.json").write_text(json.dumps(facts))
    with caplog.at_level(logging.WARNING):
        check(tmp_path)
    assert "your figures may differ a little" in caplog.text
    facts["content_sha256"] = embedded.DEFAULT_SHA256
    (tmp_path / "corpus.json").write_text(json.dumps(facts))
    caplog.clear()
    check(tmp_path)
    assert not caplog.records


@pytest.mark.parametrize(
    "content",
    ["[]", "{}", '{"hours": 2', "[" * 2_000, '{"hours": "2", "content_sha256": "0", "files_sha256": "0"}', "\xff"],
)
def test_a_damaged_description_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "corpus.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(UserError, match=r"corpus.json is missing or damaged. Remove .*, and it is made again"):
        check(tmp_path)


@pytest.mark.parametrize("hours", [0, -1, 0.05, float("nan"), float("inf")])
def test_hours_out_of_bounds(tmp_path: Path, hours: float) -> None:
    with pytest.raises(UserError, match=r"data.embedded_hours=.* give 0.1 .* to 1000"):
        make_embedded(tmp_path, hours)


def test_espeak_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install -e \.\[embedded\]"):
        make_embedded(tmp_path, 0.1)
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == []


@pytest.mark.parametrize(
    ("code", "message"),
    [(errno.ENOSPC, "free some space"), (errno.EACCES, "permit writing"), (errno.EROFS, "permit writing")],
)
def test_disk_full_or_read_only(tmp_path: Path, code: int, message: str) -> None:
    def fail(partial: Path) -> None:
        raise OSError(code, "refused", str(partial))

    with pytest.raises(UserError, match=message):
        make_folder_once(tmp_path / "corpus", fail)
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == []


def test_data_folder_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")
    with pytest.raises(UserError, match="a file where a folder must be"):
        make_folder_once(tmp_path / "data" / "corpus", lambda partial: None)
