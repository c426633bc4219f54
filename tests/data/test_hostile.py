"""Corpora from anywhere: nothing in them is executed, and no sample that is no number comes into a batch."""

import gzip
import io
import json
import logging
import os
import re
import resource
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from nibble.commands import shar as command
from nibble.conventions import SAMPLE_RATE_HZ
from nibble.data import audio
from nibble.data.audio import decode, source
from nibble.data.conversion import convert
from nibble.data.datamodule import SpeechDataModule
from nibble.data.noise import FolderNoise
from nibble.data.options import Corpus, DataConfig, NoiseConfig, NoiseKind
from nibble.data.sources import shar
from nibble.data.sources.librispeech import LibriSpeech
from nibble.data.sources.part import read_part
from nibble.errors import UserError
from nibble.features.options import FeatureConfig, FeatureStorage
from nibble.hardware import HardwareConfig

Cut = dict[str, Any]
HARDWARE = HardwareConfig(workers=0, batch_duration_s=8.0, max_batch_utterances=3, buckets=2)


def module(corpus: Path, root: Path, stored: bool = False, **data: Any) -> SpeechDataModule:
    options = DataConfig(corpus=Corpus.librispeech, corpus_dir=str(corpus), **data)
    features = FeatureConfig(storage=FeatureStorage.stored if stored else FeatureStorage.on_the_fly)
    return SpeechDataModule(options, features, HARDWARE, 1, root)


def read_all(data: SpeechDataModule) -> list[str]:
    """The ids of the dev parts, from batches whose features are numbers."""
    batches = list(data.val_dataloader())
    assert all(torch.isfinite(batch.features).all() for batch in batches)
    return sorted(name for batch in batches for name in batch.ids)


@pytest.fixture
def corpus(tiny_corpus: Path, tmp_path: Path) -> Path:
    shutil.copytree(tiny_corpus, tmp_path / "corpus")
    return tmp_path / "corpus"


@pytest.fixture
def chapter(corpus: Path) -> Path:
    return corpus / "LibriSpeech/dev-tiny/11/1"


# ---- commands --------------------------------------------------------------------------------------------------------


def features(command: str, **changes: Any) -> Cut:
    return {
        "type": "fbank",
        "num_frames": 132,
        "num_features": 80,
        "frame_shift": 0.01,
        "sampling_rate": SAMPLE_RATE_HZ,
        "start": 0,
        "duration": 1.32,
        "storage_type": "lilcom_chunky",
        "storage_path": f"pipe:{command}",
        "storage_key": "0",
        **changes,
    }


def recording(kind: str, place: str, **changes: Any) -> Cut:
    return {
        "id": "11-1-0000",
        "sources": [{"type": kind, "channels": [0], "source": place}],
        "sampling_rate": SAMPLE_RATE_HZ,
        "num_samples": 21120,
        "duration": 1.32,
        **changes,
    }


def hostile(command: str) -> dict[str, tuple[Callable[[Cut], Any], str]]:
    """What a cut may hold that Lhotse would run or fetch: (how it gets there, the field that the message names)."""
    array = {"storage_type": "numpy_files", "storage_path": f"pipe:{command}", "storage_key": "0", "shape": [1]}
    mixed = {"type": "MixedCut", "tracks": []}
    return {
        "features in a pipe": (lambda cut: cut.update(features=features(command)), "features has storage_type='lilcom"),
        "features of a url": (
            lambda cut: cut.update(features=features("", storage_type="lilcom_url", storage_path="http://127.0.0.1:9")),
            "features has storage_type='lilcom_url'",
        ),
        "features of an unknown kind": (
            lambda cut: cut.update(features=features("", storage_type="mine")),
            "features has storage_type='mine'",
        ),
        "a shard's features in a pipe": (
            lambda cut: cut.update(features=features(command, storage_type="shar")),
            "features has storage_type='shar' and storage_path='pipe:",
        ),
        "a command": (
            lambda cut: cut.update(recording=recording("command", command)),
            r"recording.sources\[0\] has type='command'",
        ),
        "a url": (
            lambda cut: cut.update(recording=recording("url", "http://127.0.0.1:9/a.wav")),
            r"recording.sources\[0\] has type='url'",
        ),
        "a file": (
            lambda cut: cut.update(recording=recording("file", f"pipe:{command}")),
            r"recording.sources\[0\] has type='file'",
        ),
        "a transform": (
            lambda cut: cut["recording"].update(transforms=[{"name": "Speed", "kwargs": {"factor": 2}}]),
            "recording has the field 'transforms'",
        ),
        "a custom recording": (
            lambda cut: cut.update(custom={"target": recording("command", command)}),
            "custom.'target' is a manifest",
        ),
        "a custom array": (lambda cut: cut.update(custom={"codes": array}), "custom.'codes' is a manifest"),
        "a custom array of a sentence": (
            lambda cut: cut["supervisions"][0].update(custom={"codes": {"array": array}}),
            r"supervisions\[0\].custom.'codes' is a manifest",
        ),
        "a mix": (lambda cut: cut.update(mixed), "has the field 'tracks'|type is 'MixedCut'"),
        "an unknown field": (lambda cut: cut.update(video=f"pipe:{command}"), "has the field 'video'"),
    }


@pytest.fixture(scope="module")
def shards(tiny_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("shards") / "tiny"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(target.parent)
        assert command.main([str(tiny_corpus), str(target)]) == 0
    return target


def change_first_cut(shards: Path, target: Path, change: Callable[[Cut], Any]) -> Path:
    """A copy of the shards whose first dev cut is changed."""
    shutil.copytree(shards, target)
    manifest = target / "dev-tiny/cuts.000000.jsonl.gz"
    first, *others = gzip.decompress(manifest.read_bytes()).decode().splitlines()
    cut = json.loads(first)
    change(cut)
    manifest.write_bytes(gzip.compress("\n".join([json.dumps(cut), *others]).encode()))
    return target


@pytest.mark.parametrize("name", list(hostile("")))
def test_a_shard_executes_nothing(name: str, shards: Path, tmp_path: Path) -> None:
    marker = tmp_path / "executed"
    change, field = hostile(f"touch {marker}")[name]
    corpus = change_first_cut(shards, tmp_path / "corpus", change)
    with pytest.raises(UserError, match=rf"cuts\.000000\.jsonl\.gz, line 1, cut '11-1-0000'.*({field})"):
        read_all(module(corpus, tmp_path / "data"))
    assert not marker.exists()


def test_what_lhotse_keeps_about_a_shard_s_own_files_is_read(shards: Path, tmp_path: Path) -> None:
    def describe(cut: Cut) -> None:
        cut["features"] = features("", storage_type="shar", storage_path="", storage_key="")
        cut["custom"] = {"speaker_age": 30, "place": {"room": "kitchen"}}
        cut["supervisions"][0].update(language="en", gender="F", custom={"said": "twice"})

    corpus = change_first_cut(shards, tmp_path / "corpus", describe)
    assert len(read_all(module(corpus, tmp_path / "data"))) == 4


@pytest.mark.parametrize("layout", ["files", "shards"])
def test_what_is_kept_about_a_part_executes_nothing(
    layout: str, tiny_corpus: Path, shards: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    corpus = tiny_corpus if layout == "files" else shards
    expected = read_all(module(corpus, tmp_path / "data"))
    marker = tmp_path / "executed"
    line = json.loads(gzip.decompress((shards / "dev-tiny/cuts.000000.jsonl.gz").read_bytes()).splitlines()[0])
    line.update(features=features(f"touch {marker}"), recording=recording("command", f"touch {marker}"))
    for file in (tmp_path / "data/cache").glob("*.jsonl"):
        file.write_bytes(json.dumps(line).encode() + b"\n")
    with caplog.at_level(logging.WARNING):
        assert read_all(module(corpus, tmp_path / "data")) == expected
    assert not marker.exists()
    assert "is not whole (no option 'id'" in caplog.text


@pytest.mark.parametrize("audio_of", ["/etc/hostname", "../../11/1/11-1-0000.flac", "a\0b", "11/1/gone.flac"])
def test_what_is_kept_about_a_part_names_no_file_outside_of_it(
    audio_of: str, tiny_corpus: Path, tmp_path: Path
) -> None:
    folder, cache = tiny_corpus / "LibriSpeech", tmp_path / "cache"
    expected = [source(cut) for cut in read_part(LibriSpeech(folder / "dev-tiny"), cache)]
    (file,) = cache.glob("*.jsonl")
    first, *others = file.read_bytes().splitlines(keepends=True)
    name, text, _, *more = json.loads(first)
    file.write_bytes(b"".join([json.dumps([name, text, audio_of, *more]).encode() + b"\n", *others]))
    assert [source(cut) for cut in read_part(LibriSpeech(folder / "dev-tiny"), cache)] == expected


@pytest.mark.parametrize("layout", ["files", "shards"])
@pytest.mark.parametrize("left_bytes", [0, 10, -1, -8])
def test_what_is_kept_about_a_part_is_made_again_if_it_is_cut_off(
    layout: str, left_bytes: int, tiny_corpus: Path, shards: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    corpus = tiny_corpus if layout == "files" else shards
    expected = read_all(module(corpus, tmp_path))
    for file in (tmp_path / "cache").glob("*.jsonl"):
        file.write_bytes(file.read_bytes()[:left_bytes])
    with caplog.at_level(logging.WARNING):
        assert read_all(module(corpus, tmp_path)) == expected
    assert "is not whole" in caplog.text
    assert "the part is checked again" in caplog.text


def test_no_object_of_lhotse_is_made_from_a_file() -> None:
    """The bench alone reads shards with Lhotse: those that it has written a moment before."""
    source_folder = Path(shar.__file__).parents[2]
    loads = re.compile(
        r"(Cut|CutSet|Recording|RecordingSet|Features|FeatureSet)\.from_(?!cuts)|load_manifest|load_audio"
    )
    found = [path for path in source_folder.rglob("*.py") if loads.search(path.read_text(encoding="utf-8"))]
    assert [path.relative_to(source_folder).as_posix() for path in found] == ["bench/feeding.py"]


# ---- samples that are no numbers -------------------------------------------------------------------------------------


def write_float(path: Path, value: float, subtype: str = "FLOAT") -> None:
    """One second with `value` in its middle, far from the tenth of a second that is read of other files."""
    samples = 0.1 * np.sin(np.arange(SAMPLE_RATE_HZ))
    samples[8000:8003] = value
    soundfile.write(path, samples, SAMPLE_RATE_HZ, subtype=subtype)


def spoil(chapter: Path, value: float = np.nan, subtype: str = "FLOAT") -> None:
    """Put a float WAV in place of utterance 11-1-0000."""
    (chapter / "11-1-0000.flac").unlink()
    write_float(chapter / "11-1-0000.wav", value, subtype)


@pytest.mark.parametrize("hours", [10.0, 0.0], ids=["decoded once", "decoded each time"])
@pytest.mark.parametrize("stored", [False, True], ids=["on the fly", "stored"])
@pytest.mark.parametrize("value", [np.nan, -np.inf, 1e38])
def test_the_corpus_check_finds_them(
    value: float,
    stored: bool,
    hours: float,
    corpus: Path,
    chapter: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(audio, "MAX_STORED_HOURS", hours)
    spoil(chapter, value)
    message = (
        r"1 utterances can't be used.*11-1-0000: .*11-1-0000.wav holds 3 samples that are not numbers.*at 0\.500 s"
    )
    with pytest.raises(UserError, match=message):
        read_all(module(corpus, tmp_path / "data", stored))
    with caplog.at_level(logging.WARNING):
        found = read_all(module(corpus, tmp_path / "data", stored, max_bad_utterances=1))
    assert found == ["11-1-0001", "12-1-0000", "12-1-0001"]
    assert "1 utterances left out: 11-1-0000" in caplog.text


def test_doubles_are_found_too_and_after_the_check_as_well(corpus: Path, chapter: Path, tmp_path: Path) -> None:
    spoil(chapter, 1e300, "DOUBLE")
    with pytest.raises(UserError, match=r"11-1-0000.wav holds 3 samples that are not numbers"):
        decode(chapter / "11-1-0000.wav")
    with pytest.raises(UserError, match=r"11-1-0000.wav holds 3 samples that are not numbers"):
        convert(chapter / "11-1-0000.wav", tmp_path / "x.flac")
    with pytest.raises(UserError, match="1 utterances can't be used"):
        read_part(LibriSpeech(corpus / "LibriSpeech" / "dev-tiny"), tmp_path)


def test_a_shard_s_are_found(shards: Path, tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    shutil.copytree(shards, corpus)
    archive = corpus / "dev-tiny/recording.000000.tar"
    with tarfile.open(archive) as tar:
        members = [(one, tar.extractfile(one).read()) for one in tar]  # type: ignore[union-attr]
    bad = io.BytesIO()
    samples = np.full(21120, 0.1, dtype=np.float32)
    samples[100] = np.nan
    soundfile.write(bad, samples, SAMPLE_RATE_HZ, format="WAV", subtype="FLOAT")
    with tarfile.open(archive, "w") as tar:
        for one, content in members:
            content = bad.getvalue() if one.name == "11-1-0000.flac" else content
            one.size = len(content)
            tar.addfile(one, io.BytesIO(content))
    with pytest.raises(UserError, match=r"1 utterances can't be used.*11-1-0000: .*recording.*\.tar:.*not numbers"):
        read_all(module(corpus, tmp_path / "data"))
    assert len(read_all(module(corpus, tmp_path / "data", max_bad_utterances=1))) == 3


def test_noise_s_are_found_before_training(tmp_path: Path) -> None:
    (tmp_path / "noise").mkdir()
    write_float(tmp_path / "noise/hum.wav", np.nan)
    with pytest.raises(UserError, match=r"data.noise.dir: .*hum.wav holds 3 samples that are not numbers"):
        FolderNoise(tmp_path / "noise")


@pytest.mark.parametrize("content", ["nan", "cut off", "another shape", "a pickle"])
def test_stored_features_that_are_damaged(content: str, tiny_corpus: Path, tmp_path: Path) -> None:
    data = module(tiny_corpus, tmp_path, stored=True)
    read_all(data)
    for file in (tmp_path / "features").rglob("*.npy"):
        good = np.load(file)
        if content == "cut off":
            file.write_bytes(file.read_bytes()[:-4])
        elif content == "a pickle":
            np.save(file, np.array([Executed(tmp_path / "executed")], dtype=object), allow_pickle=True)
        else:
            np.save(file, np.full_like(good, np.nan) if content == "nan" else good[:, :40])
    with pytest.raises(UserError, match=r"\.npy is damaged: .*remove the folder .*features"):
        list(data.val_dataloader())
    assert not (tmp_path / "executed").exists()


class Executed:
    """Writes a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.marker}",)


# ---- claims ----------------------------------------------------------------------------------------------------------


def write_claim(path: Path, samples: int) -> None:
    """A FLAC file of a second that says it is of so many samples."""
    soundfile.write(path, np.zeros(SAMPLE_RATE_HZ), SAMPLE_RATE_HZ, format="FLAC")
    content = bytearray(path.read_bytes())
    content[21:26] = bytes([content[21] & 0xF0 | samples >> 32]) + (samples % 2**32).to_bytes(4, "big")
    path.write_bytes(content)


def read_as_speech(path: Path, corpus: Path, tmp_path: Path) -> None:
    chapter = corpus / "LibriSpeech/dev-tiny/11/1"
    (chapter / "11-1-0000.flac").unlink()
    shutil.copy(path, chapter / f"11-1-0000{path.suffix}")
    assert len(read_all(module(corpus, tmp_path / "data"))) == 4


def read_as_noise(path: Path, corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "noise").mkdir()
    shutil.copy(path, tmp_path / "noise")
    noise = NoiseConfig(kind=NoiseKind.folder, dir=str(tmp_path / "noise"))
    assert len(read_all(module(corpus, tmp_path / "data", noise=noise))) == 4


READERS = [read_as_speech, read_as_noise]


@pytest.mark.parametrize("read", READERS)
def test_a_claim_of_hours_takes_no_memory(read, corpus: Path, tmp_path: Path) -> None:
    write_claim(tmp_path / "long.flac", 2_700_000_000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UserError, match=r"claims 2,700,000,000 samples .*46\.9 hours.*a file may hold 134,217,728"):
        read(tmp_path / "long.flac", corpus, tmp_path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # kilobytes


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("rate_hz", [44_101, 7_919])
def test_a_rate_without_a_short_ratio_takes_no_memory(read, rate_hz: int, corpus: Path, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "odd.wav", 0.1 * np.sin(np.arange(rate_hz)), rate_hz)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    read(tmp_path / "odd.wav", corpus, tmp_path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("rate_hz", [10, 999_983])
def test_a_rate_that_no_recorder_has(read, rate_hz: int, corpus: Path, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "odd.wav", np.zeros(4000), rate_hz)
    with pytest.raises(UserError, match=rf"claims {rate_hz} samples a second; speech has 1000 to 400000"):
        read(tmp_path / "odd.wav", corpus, tmp_path)


@pytest.mark.parametrize("read", READERS)
def test_a_pipe_is_not_waited_for(read, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        shutil,
        "copy",
        lambda path, target: os.mkfifo(Path(target, "") / path.name if Path(target).is_dir() else target),
    )
    with pytest.raises(UserError, match=r"(11-1-0000|pipe)\.wav is not a file"):
        read(tmp_path / "pipe.wav", corpus, tmp_path)


# ---- names and texts -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", [b"dev-[red]", b"dev-caf\xe9", b"dev-\x1b[31m", b"dev-pipe:touch executed", b"dev-50%"]
)
def test_a_part_may_have_any_name(name: bytes, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nibble.progress.PATIENCE_S", -1.0)
    monkeypatch.chdir(corpus / "LibriSpeech")
    (corpus / "LibriSpeech/dev-tiny").rename(os.fsdecode(name))
    assert len(read_all(module(Path(), tmp_path / "data"))) == 4
    assert len(read_all(module(Path(), tmp_path / "data"))) == 4
    assert command.main([".", str(tmp_path / "shards")]) == 0
    assert len(read_all(module(tmp_path / "shards", tmp_path / "data"))) == 4
    assert not list(corpus.rglob("executed"))


def test_a_file_whose_name_is_not_utf8(corpus: Path, chapter: Path, tmp_path: Path) -> None:
    chapter.rename(os.fsdecode(os.fsencode(chapter.parent) + b"/\xe9"))
    with pytest.raises(UserError, match=r"11-1-0000: a file name that is not UTF-8 \(.*\\udce9/.*rename it"):
        read_all(module(corpus, tmp_path / "data"))
    assert len(read_all(module(corpus, tmp_path / "data", max_bad_utterances=2))) == 2
    assert len(read_all(module(corpus, tmp_path / "data", max_bad_utterances=2))) == 2


def test_a_message_cannot_steer_the_terminal(corpus: Path, chapter: Path, tmp_path: Path) -> None:
    with (chapter / "11-1.trans.txt").open("a") as file:
        file.write("\x1b[2J\x1b[31mevil NO\u2028MORE\n")
    with pytest.raises(UserError, match=r"\\x1b\[2J\\x1b\[31mevil: transcript without audio"):
        read_all(module(corpus, tmp_path / "data"))


def test_a_transcript_line_has_an_end(corpus: Path, chapter: Path, tmp_path: Path) -> None:
    with (chapter / "11-1.trans.txt").open("ab") as file:
        file.truncate(2**31)  # zeros that take no place on the disk
    with pytest.raises(UserError, match=r"11-1.trans.txt, line 3 is longer than 16,777,216 bytes"):
        read_all(module(corpus, tmp_path / "data"))


def test_links_in_a_circle(corpus: Path, chapter: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (chapter / name).symlink_to(corpus / "LibriSpeech/dev-tiny", target_is_directory=True)
    assert len(read_all(module(corpus, tmp_path / "data"))) == 4


@pytest.mark.parametrize("stored", [False, True])
def test_a_disk_that_cannot_be_written(stored: bool, tiny_corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file where a folder must be")
    with pytest.raises(UserError, match=r"write its cache: .*Free space or permit writing in .*data"):
        read_all(module(tiny_corpus, tmp_path / "data", stored))
