"""Speech from anywhere: audio, transcripts, Lhotse Shar, and what is kept about a part."""

import gzip
import io
import json
import tarfile
import tempfile
import unicodedata
from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import soundfile
import torch
from fuzzing import COMMAND, Kind, Write
from mutations import RAW, as_json, broken, hostile
from small import small_config

from nibble.conventions import SAMPLE_RATE_HZ
from nibble.data.audio import Waveforms, decode, source
from nibble.data.noise import FolderNoise
from nibble.data.samples import MAX_LEVEL
from nibble.data.sources.librispeech import LibriSpeech
from nibble.data.sources.part import Reading, read_part
from nibble.data.sources.shar import Shar, write_shar
from nibble.data.text import normalised
from nibble.errors import UserError
from nibble.features.extractor import make_features
from nibble.inference.reading import duration_s, pieces

TEXTS = {"1-1-0000": "UP DOWN", "1-1-0001": "LEFT"}
PART = "dev-x"
ENCODINGS = {  # suffix -> format and subtype that soundfile writes
    "pcm.wav": ("WAV", "PCM_16"),
    "float.wav": ("WAV", "FLOAT"),
    "double.wav": ("WAV", "DOUBLE"),
    "adpcm.wav": ("WAV", "IMA_ADPCM"),
    "a.flac": ("FLAC", "PCM_16"),
    "a.ogg": ("OGG", "VORBIS"),
    "a.opus": ("OGG", "OPUS"),
    "aiff.wav": ("AIFF", "PCM_16"),
    "caf.wav": ("CAF", "FLOAT"),
    "mp3.wav": ("MP3", "MPEG_LAYER_III"),
}


def speech(seed: int, seconds: float = 0.2) -> np.ndarray:
    """Samples (samples,) of a little noise."""
    return 0.1 * np.random.default_rng(seed).standard_normal(round(seconds * SAMPLE_RATE_HZ)).clip(-5, 5)


@cache
def encoded(name: str, rate_hz: int = SAMPLE_RATE_HZ, channels: int = 1) -> bytes:
    """A file of audio of one of `ENCODINGS`."""
    container, subtype = ENCODINGS[name]
    file = io.BytesIO()
    samples = np.tile(speech(1)[:, None], (1, channels))
    soundfile.write(file, samples, rate_hz, format=container, subtype=subtype)
    return file.getvalue()


# ---- audio -----------------------------------------------------------------------------------------------------------


def audio_cases(seed: int, _count: int) -> Iterator[tuple[str, Write]]:
    """Broken files of each encoding, and whole ones at odd rates and with odd samples."""
    yield "intact", lambda folder: (folder / "a.flac").write_bytes(encoded("a.flac"))
    number = 0
    while True:
        draw = Random(f"audio {seed} {number}")
        number += 1
        name = draw.choice(list(ENCODINGS))
        if draw.random() < 0.1:
            what, content = _odd_samples(draw)
            name = "float.wav"
        elif draw.random() < 0.1:
            rates = (1, 7_919, 8_000, 44_100, 44_101, 96_000, 999_983, 1_000_003, 2**31 - 1)
            rate_hz, channels = draw.choice(rates), draw.choice([1, 2, 7])
            what, name = f"{rate_hz} Hz, {channels} channels", "pcm.wav"
            content = encoded(name, rate_hz, channels)
        else:
            what, content = broken(encoded(name), draw)
        yield f"{name}: {what}", partial(_write_bytes, name=name, content=content)


def _write_bytes(folder: Path, name: str, content: bytes) -> None:
    (folder / name).write_bytes(content)


def _odd_samples(draw: Random) -> tuple[str, bytes]:
    value = draw.choice([np.nan, np.inf, -np.inf, 1e38, -1e300, 32_767.0, 1e-40, 2.0**31])
    samples = speech(1)
    samples[draw.randrange(len(samples)) :: draw.choice([1, 100, 10_000])] = value
    file = io.BytesIO()
    subtype = draw.choice(["FLOAT", "DOUBLE"])
    soundfile.write(file, samples, SAMPLE_RATE_HZ, format="WAV", subtype=subtype)
    return f"samples of {value} as {subtype}", file.getvalue()


def load_audio(folder: Path) -> None:
    """As `transcribe` reads it, and as noise: the same numbers; features of them are numbers too."""
    (file,) = folder.iterdir()
    duration_s(file)
    samples = np.concatenate([np.zeros(1, np.float32), *pieces(file)])
    assert np.abs(samples).max(initial=0.0) <= 8 * MAX_LEVEL, "samples that are no numbers"
    if len(samples) < 60 * SAMPLE_RATE_HZ:
        assert make_features(small_config().features)(torch.from_numpy(samples)).isfinite().all(), (
            "features that are no numbers"
        )
    noise = FolderNoise(folder).draw(SAMPLE_RATE_HZ // 10, np.random.default_rng(0))
    assert len(noise) == SAMPLE_RATE_HZ // 10
    assert np.isfinite(noise).all()


# ---- transcripts -----------------------------------------------------------------------------------------------------


def write_corpus(folder: Path) -> None:
    """A part of two utterances in LibriSpeech layout."""
    chapter = folder / "speech" / PART / "1" / "1"
    chapter.mkdir(parents=True)
    for number, name in enumerate(TEXTS):
        soundfile.write(chapter / f"{name}.wav", speech(number), SAMPLE_RATE_HZ)
    (chapter / "1-1.trans.txt").write_text("".join(f"{name} {text}\n" for name, text in TEXTS.items()))


def transcript_cases(seed: int, _count: int) -> Iterator[tuple[str, Write]]:
    """Broken lines, odd characters, and lines of other utterances."""
    good = "".join(f"{name} {text}\n" for name, text in TEXTS.items()).encode()
    yield "intact", partial(_write_transcript, content=good)
    odd = ["\0", "\x1b[2J", "\u2028", "\x85", "\x0c", "\ufeff", "\u2581", "<blk>", "<unk>", "\u202e", "é", "e\u0301"]
    odd += ["\U0001f600", "[red]", f"$({COMMAND})", f"pipe:{COMMAND}", "A" * 5_000, "\t", "\r", "ß", "İ", "../../x"]
    for number in range(10**9):
        draw = Random(f"transcripts {seed} {number}")
        if draw.random() < 0.5:
            text = good.decode()
            place, sign = draw.randrange(len(text)), draw.choice(odd)
            what, content = f"{sign!r:.40} at {place}", (text[:place] + sign + text[place:]).encode()
        elif draw.random() < 0.1:
            content = draw.choice(RAW)
            what = f"{content[:40]!r}"
        else:
            what, content = broken(good, draw)
        yield what, partial(_write_transcript, content=content)


def _write_transcript(folder: Path, content: bytes) -> None:
    write_corpus(folder)
    (folder / "speech" / PART / "1/1/1-1.trans.txt").write_bytes(content)


def load_transcript(folder: Path) -> None:
    """Each utterance has the text of its line, found by a reader of its own."""
    cuts = read_part(LibriSpeech(folder / "speech" / PART), folder / "cache", Reading(max_bad_utterances=1))
    content = (folder / "speech" / PART / "1/1/1-1.trans.txt").read_bytes().decode(errors="surrogateescape")
    for cut in cuts:
        (line,) = (line for line in content.split("\n") if _id(line) == cut.id)
        assert cut.supervisions[0].text == normalised(" ".join(line.removeprefix("\ufeff").split()[1:]))
    _check_same_twice(folder, list(cuts.ids), [cut.supervisions[0].text for cut in cuts])


def _id(line: str) -> str:
    return unicodedata.normalize("NFC", (line.removeprefix("\ufeff").split() or [""])[0])


def _check_same_twice(folder: Path, ids: list[str], texts: list[str]) -> None:
    again = read_part(LibriSpeech(folder / "speech" / PART), folder / "cache", Reading(max_bad_utterances=1))
    assert (list(again.ids), [cut.supervisions[0].text for cut in again]) == (ids, texts), "another time, another part"


# ---- what is kept about a part ---------------------------------------------------------------------------------------


@cache
def kept() -> bytes:
    """The file that checking the part of `write_corpus` leaves, as JSON lines."""
    with tempfile.TemporaryDirectory() as name:
        write_corpus(Path(name))
        read_part(LibriSpeech(Path(name) / "speech" / PART), Path(name) / "cache")
        (file,) = (Path(name) / "cache").glob("*.jsonl")
        return file.read_bytes()


def manifest_cases(seed: int, _count: int) -> Iterator[tuple[str, Write]]:
    """Broken files, hostile values in whole ones, and cuts as Lhotse writes them."""
    yield "intact", partial(_write_kept, content=kept())
    lines = [json.loads(line) for line in kept().splitlines()]
    for number in range(10**9):
        draw = Random(f"manifests {seed} {number}")
        if draw.random() < 0.3:
            what, content = broken(kept(), draw)
        else:
            place = draw.randrange(len(lines) + 1)
            value = lines[place] if place < len(lines) else _cut(draw)
            what, value = hostile(value, draw)
            texts = [json.dumps(line).encode() for line in lines]
            texts[place % len(lines)] = draw.choice(RAW) if draw.random() < 0.1 else as_json(value, draw)
            what, content = f"line {place}: {what}", b"\n".join(texts) + b"\n"
        yield what, partial(_write_kept, content=content)


def _write_kept(folder: Path, content: bytes) -> None:
    """The part as it is, and beside it what is said to be known about it."""
    write_corpus(folder)
    read_part(LibriSpeech(folder / "speech" / PART), folder / "cache")
    (file,) = (folder / "cache").glob("*.jsonl")
    file.write_bytes(content)


def load_kept(folder: Path) -> None:
    """Whatever is said, audio is that of the part, and is decoded as the file has it."""
    (file,) = (folder / "cache").glob("*.jsonl")
    before = file.read_bytes()
    cuts = read_part(LibriSpeech(folder / "speech" / PART), folder / "cache", Reading(max_bad_utterances=2))
    waveforms = Waveforms(folder / "cache")
    waveforms.add(cuts, PART)
    for cut in cuts:
        assert Path(source(cut)).is_relative_to(folder)
        assert np.array_equal(waveforms.read(source(cut)), decode(source(cut)))
    if file.read_bytes() != before:
        assert {cut.id: cut.supervisions[0].text for cut in cuts} == TEXTS
        raise UserError("it was refused, and the part checked again")


# ---- Shar ------------------------------------------------------------------------------------------------------------


@cache
def shards() -> dict[str, bytes]:
    """The part of `write_corpus` as Lhotse Shar: name -> content."""
    with tempfile.TemporaryDirectory() as name:
        write_corpus(Path(name))
        speech = LibriSpeech(Path(name) / "speech" / PART)
        write_shar(speech, PART, Path(name) / "shards", Path(name) / "cache")
        return {file.name: file.read_bytes() for file in (Path(name) / "shards" / PART).iterdir()}


def _cut(draw: Random) -> Any:
    """A cut of Lhotse, with what it could load from elsewhere."""
    cut = json.loads(gzip.decompress(shards()["cuts.000000.jsonl.gz"]).splitlines()[0])
    place = draw.choice([f"pipe:{COMMAND}", COMMAND, "http://127.0.0.1:9/a", "/etc/passwd", ""])
    kind = draw.choice(["command", "url", "file", "memory", "shar", "lilcom_chunky", "numpy_files", "lilcom_url"])
    array = {"storage_type": kind, "storage_path": place, "storage_key": "0", "shape": [20, 80]}
    features = {"type": "fbank", "num_frames": 20, "num_features": 80, "frame_shift": 0.01, "sampling_rate": 16000}
    features = {**features, "start": 0, "duration": 0.2, **{name: array[name] for name in list(array)[:3]}}
    sources = [{"type": kind, "channels": [0], "source": place}]
    added = draw.choice(["features", "recording", "custom array", "custom recording", "transforms"])
    if added == "features":
        cut["features"] = features
    elif added == "transforms":
        cut["recording"]["transforms"] = [{"name": "Speed", "kwargs": {"factor": 1.1}}]
    elif added == "custom array":
        cut["custom"] = {"codes": array}
    else:
        recording = {**cut["recording"], "sources": sources}
        cut.update({"recording": recording} if added == "recording" else {"custom": {"other": recording}})
    return cut


def shar_cases(seed: int, _count: int) -> Iterator[tuple[str, Write]]:
    """Broken cuts and tar files, hostile cuts, and audio that is not what the cuts say."""
    good = shards()
    yield "intact", partial(_write_shards, files=good)
    cuts, tar = "cuts.000000.jsonl.gz", "recording.000000.tar"
    lines = [json.loads(line) for line in gzip.decompress(good[cuts]).splitlines()]
    for number in range(10**9):
        draw = Random(f"shar {seed} {number}")
        how = draw.choice(["cuts", "tar", "values", "values", "Lhotse", "audio"])
        if how == "cuts":
            what, content = broken(good[cuts], draw)
            changed = {cuts: content}
        elif how == "tar":
            what, content = broken(good[tar], draw)
            changed = {tar: content}
        elif how == "audio":
            name = draw.choice(list(ENCODINGS))
            what, content = broken(encoded(name), draw)
            what, changed = f"{name}: {what}", {tar: _with_audio(good[tar], content)}
        else:
            place = draw.randrange(len(lines))
            value = _cut(draw) if how == "Lhotse" else lines[place]
            what, value = (
                ("a cut of Lhotse", value) if draw.random() < 0.5 and how == "Lhotse" else hostile(value, draw)
            )
            texts = [json.dumps(line).encode() for line in lines]
            texts[place] = draw.choice(RAW) if draw.random() < 0.1 else as_json(value, draw)
            changed = {cuts: gzip.compress(b"\n".join(texts) + b"\n")}
        yield f"{how}: {what}", partial(_write_shards, files={**good, **changed})


def _with_audio(archive: bytes, content: bytes) -> bytes:
    """The tar file with other bytes for its first utterance."""
    target = io.BytesIO()
    with tarfile.open(fileobj=io.BytesIO(archive)) as old, tarfile.open(fileobj=target, mode="w") as new:
        for number, member in enumerate(old):
            kept = old.extractfile(member)
            assert kept is not None
            inside = content if number == 0 else kept.read()
            member.size = len(inside)
            new.addfile(member, io.BytesIO(inside))
    return target.getvalue()


def _write_shards(folder: Path, files: dict[str, bytes]) -> None:
    (folder / "speech" / PART).mkdir(parents=True)
    for name, content in files.items():
        (folder / "speech" / PART / name).write_bytes(content)


def load_shards(folder: Path) -> None:
    """Each utterance is as long as its audio and has the text of its cut."""
    cuts = read_part(Shar(folder / "speech" / PART), folder / "cache", Reading(max_bad_utterances=1))
    content = gzip.decompress((folder / "speech" / PART / "cuts.000000.jsonl.gz").read_bytes())
    said = {cut["id"]: cut for cut in map(json.loads, content.decode().splitlines())}
    waveforms = Waveforms(folder / "cache")
    waveforms.add(cuts, PART)
    for cut in cuts:
        assert cut.supervisions[0].text == normalised(said[cut.id]["supervisions"][0]["text"])
        samples = decode(source(cut))
        assert len(samples) == cut.num_samples
        assert np.isfinite(waveforms.read(source(cut))).all()
        assert abs(said[cut.id]["duration"] * SAMPLE_RATE_HZ - len(samples)) <= 1


KINDS = [
    Kind("audio", audio_cases, load_audio),
    Kind("transcripts", transcript_cases, load_transcript),
    Kind("manifests", manifest_cases, load_kept),
    Kind("shar", shar_cases, load_shards),
]
