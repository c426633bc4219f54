"""Audio as people have it: read right, or named with what to do."""

import io
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile

from nibble.conventions import SAMPLE_RATE_HZ
from nibble.data.audio import decode, source
from nibble.data.conversion import whole
from nibble.data.samples import opened, read
from nibble.data.sources.part import Reading, read_part
from nibble.data.sources.recognise import source_of
from nibble.errors import UserError

TIME_S = np.arange(2 * SAMPLE_RATE_HZ) / SAMPLE_RATE_HZ
TONE = 0.25 * np.sin(2 * np.pi * 440 * TIME_S)


def corpus_of(folder: Path, name: str) -> Path:
    """A manifest of one file beside it."""
    (folder / "part.jsonl").write_text(f'{{"audio_filepath": "{name}", "text": "a"}}\n')
    return folder / "part.jsonl"


def samples_of(folder: Path, name: str, **reading) -> np.ndarray:
    (cut,) = read_part(source_of(corpus_of(folder, name)), folder / "cache", Reading(**reading))
    samples = decode(source(cut))
    assert len(samples) == cut.num_samples
    return samples


@pytest.mark.parametrize("depth", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW"])
@pytest.mark.parametrize("rate_hz", [8_000, 44_100])
def test_any_depth_and_rate(depth: str, rate_hz: int, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.WAV", TONE[: 2 * rate_hz], rate_hz, subtype=depth)
    samples = samples_of(tmp_path, "a.WAV")
    assert abs(np.abs(samples[2000:-2000]).max() - 0.25) < 0.02


@pytest.mark.parametrize("peak", [32_767, 2**31 - 1])
def test_floats_in_the_range_of_integers(peak: int, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", (TONE / TONE.max() * peak).astype(np.float32), SAMPLE_RATE_HZ, subtype="FLOAT")
    np.testing.assert_allclose(samples_of(tmp_path, "a.wav"), TONE / TONE.max(), atol=1e-4)
    samples, change = whole(tmp_path / "a.wav")
    assert change.startswith("samples up to ")
    np.testing.assert_allclose(samples, TONE / TONE.max(), atol=1e-4)


def test_channels_in_opposite_phase_do_not_cancel(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.flac", np.stack([TONE, -1.01 * TONE], axis=1), SAMPLE_RATE_HZ)
    np.testing.assert_allclose(samples_of(tmp_path, "a.flac"), -1.01 * TONE, atol=1e-4)
    with opened(tmp_path / "a.flac") as file:
        file.seek(1000)
        np.testing.assert_allclose(read(file, "a", 500), -1.01 * TONE[1000:1500], atol=1e-4)


def test_channels_are_mixed_or_chosen(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.flac", np.stack([TONE, 0.2 * TONE], axis=1), SAMPLE_RATE_HZ)
    for channel, factor in (("mix", 0.6), ("0", 1.0), ("1", 0.2)):
        np.testing.assert_allclose(samples_of(tmp_path, "a.flac", channel=channel), factor * TONE, atol=1e-4)
    with pytest.raises(UserError, match=r"a\.flac has 2 channels, counted from 0, and no channel 2"):
        samples_of(tmp_path, "a.flac", channel="2")


def wav(promised: int, samples: int = 16_000) -> bytes:
    """A WAV whose header promises so many bytes of samples."""
    data = (TONE[:samples] * 32767).astype("<i2").tobytes()
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, SAMPLE_RATE_HZ, 2 * SAMPLE_RATE_HZ, 2, 16)
    return (
        b"RIFF"
        + struct.pack("<I", min(36 + promised, 2**32 - 1))
        + b"WAVE"
        + form
        + b"data"
        + struct.pack("<I", promised)
        + data
    )


def test_headers_that_promise_too_much_or_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(wav(promised=0))
    with pytest.raises(UserError, match=r"a\.wav: its header says that it has no samples, .*32,000 bytes.*ffmpeg -i"):
        samples_of(tmp_path, "a.wav")
    (tmp_path / "b.wav").write_bytes(wav(promised=48_000))
    with pytest.raises(UserError, match=r"b\.wav: it is truncated: .*48,000 bytes of samples, and 32,000 are there"):
        samples_of(tmp_path, "b.wav")
    (tmp_path / "c.wav").write_bytes(wav(promised=0xFFFFFFFF))  # as a pipe leaves it
    assert len(samples_of(tmp_path, "c.wav")) == 16_000


def mp3(samples: np.ndarray) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, SAMPLE_RATE_HZ, format="MP3", subtype="MPEG_LAYER_III")
    return file.getvalue()


def test_mp3_files(tmp_path: Path) -> None:
    content = mp3(TONE)
    (tmp_path / "a.mp3").write_bytes(content)
    assert len(samples_of(tmp_path, "a.mp3")) == len(TONE)
    second = content.index(b"\xff\xf3", 4)  # the frame after the one with the length, whose own size is another
    (tmp_path / "pipe.mp3").write_bytes(content[second:])
    with opened(tmp_path / "pipe.mp3") as file:
        promised = file.frames
    samples = samples_of(tmp_path, "pipe.mp3")
    assert promised - 0.5 * SAMPLE_RATE_HZ <= len(samples) <= promised
    (tmp_path / "two.mp3").write_bytes(content + content)
    with pytest.raises(UserError, match=r"two\.mp3: it is several MP3 files in one: the first ends after"):
        samples_of(tmp_path, "two.mp3")


def test_a_refusal_says_what_to_type(tmp_path: Path) -> None:
    (folder := tmp_path / ("deep" * 40)).mkdir()  # the line stands at the end of a message that names the file twice
    (folder / "a b.wav").write_bytes(b"RIFFnothing to hear")
    with pytest.raises(UserError, match=r"ffmpeg -i '.*a b\.wav' -ac 1 -ar 16000 NEW\.flac"):
        samples_of(folder, "a b.wav")


@pytest.mark.parametrize("ending", [".m4a", ".mp4", ".webm", ".wma", ".mkv"])
def test_media(ending: str, tmp_path: Path) -> None:
    av = pytest.importorskip("av", reason="PyAV is not installed: pip install -e '.[media]'")
    codec = {".webm": "libopus", ".wma": "wmav2"}.get(ending, "aac")
    with av.open(str(tmp_path / f"a{ending}"), "w", format="asf" if ending == ".wma" else None) as container:
        stream = container.add_stream(codec, rate=48_000, layout="stereo")
        stream.bit_rate = 128_000
        tone = np.tile(0.25 * np.sin(2 * np.pi * 440 * np.arange(96_000) / 48_000), (2, 1)).astype(np.float32)
        frame = av.AudioFrame.from_ndarray(tone, format="fltp", layout="stereo")
        frame.sample_rate = 48_000
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)
    samples = samples_of(tmp_path, f"a{ending}")
    assert abs(len(samples) - len(TONE)) < 0.15 * SAMPLE_RATE_HZ
    spectrum = np.abs(np.fft.rfft(samples[: 2**14] * np.hanning(2**14)))
    assert abs(spectrum.argmax() * SAMPLE_RATE_HZ / 2**14 - 440) < 2
    assert abs(np.abs(samples[4000:-4000]).max() - 0.25) < 0.03


def test_a_playlist_opens_nothing(tmp_path: Path) -> None:
    pytest.importorskip("av", reason="PyAV is not installed: pip install -e '.[media]'")
    soundfile.write(tmp_path / "secret.wav", TONE, SAMPLE_RATE_HZ)
    secret = f"{tmp_path}/secret.wav"
    for playlist in (f"#EXTM3U\n#EXTINF:2,\nfile://{secret}\n", f"ffconcat version 1.0\nfile {secret}\n"):
        (tmp_path / "a.m4a").write_text(playlist)
        with pytest.raises(UserError, match=r"a\.m4a is not audio that can be read"):
            samples_of(tmp_path, "a.m4a")
