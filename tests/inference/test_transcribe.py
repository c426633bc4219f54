from pathlib import Path

import pytest
import soundfile
import torch

from nibble.errors import UserError
from nibble.inference import transcription
from nibble.model.decoding import Hypothesis
from nibble.runs.bundle import write_bundle
from nibble.runs.checkpoint import load_checkpoint


@pytest.fixture(scope="module")
def bundle(write_run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle") / "bundle"
    loaded = load_checkpoint(write_run("int4", "rules"))
    write_bundle(loaded, folder)
    return folder


def write(path: Path, rate_hz: int = 16_000, channels: int = 1) -> Path:
    time_s = torch.arange(rate_hz // 2) / rate_hz
    tone = 0.3 * torch.sin(2 * torch.pi * 440 * time_s)
    soundfile.write(path, tone[:, None].expand(-1, channels).numpy(), rate_hz)
    return path


def test_prints_one_line_a_file(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [write(tmp_path / "a.wav"), write(tmp_path / "b.flac")]
    assert transcription.main([f"model={bundle}", *map(str, files)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == list(map(str, files))
    assert transcription.main([f"model={bundle}", str(files[0])]) == 0
    (alone,) = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{files[0]}: {alone}"
    assert transcription.main([str(bundle), str(files[0])]) == 0  # a folder alone, without model=, is the model too
    assert capsys.readouterr().out.splitlines() == [alone]


@pytest.mark.parametrize(("rate_hz", "channels"), [(8_000, 1), (44_100, 2), (48_000, 6), (44_101, 1)])
def test_any_rate_and_channels(tmp_path: Path, rate_hz: int, channels: int) -> None:
    samples = transcription.read_audio(write(tmp_path / "x.wav", rate_hz, channels))
    reference = transcription.read_audio(write(tmp_path / "y.wav"))
    assert samples.shape == reference.shape == (8_000,)
    inner = slice(200, -200)  # resampling rings at the ends
    torch.testing.assert_close(samples[inner], reference[inner], atol=0.01, rtol=0)


def test_timestamps_are_times_in_the_file(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = load_checkpoint(bundle)
    up, stop = loaded.tokenizer.encode("UP"), loaded.tokenizer.encode("STOP")
    found = [Hypothesis([*up, *stop], [0] * len(up) + [5] * len(stop), 0.0)]
    monkeypatch.setattr(transcription, "greedy", lambda *_: found)
    assert transcription.main([f"model={bundle}", str(write(tmp_path / "a.wav")), "--timestamps"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0] == "UP STOP"
    assert [line.split() for line in out[1:]] == [["0.00", "s", "UP"], ["0.20", "s", "STOP"]]


def test_a_beam_of_one_or_more(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert transcription.main([f"model={bundle}", str(write(tmp_path / "a.wav")), "--beam-width", "2"]) == 0
    with pytest.raises(SystemExit):
        transcription.main([f"model={bundle}", str(tmp_path / "a.wav"), "--beam-width", "0"])
    assert "give at least 1" in capsys.readouterr().err


def test_bad_files_are_reported_and_the_others_go_on(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = write(tmp_path / "good.wav")
    (tmp_path / "text.wav").write_text("no audio")
    (tmp_path / "short.flac").write_bytes(write(tmp_path / "whole.flac").read_bytes()[:2000])
    soundfile.write(tmp_path / "empty.wav", torch.zeros(0).numpy(), 16_000)
    (tmp_path / "zero.wav").touch()
    (tmp_path / "samples.raw").write_bytes(bytes(1000))
    (tmp_path / "folder").mkdir()
    names = ("text.wav", "short.flac", "empty.wav", "absent.wav", "zero.wav", "samples.raw", "folder")
    bad = [tmp_path / name for name in names]
    assert transcription.main([f"model={bundle}", *map(str, [*bad, good])]) == 1
    output = capsys.readouterr()
    assert output.out.startswith(str(good))
    errors = output.err.splitlines()
    assert len([line for line in errors if line.startswith("error: ")]) == len(bad)
    for text in (
        "text.wav is not audio that can be read, or is truncated",
        "short.flac",
        "empty.wav holds no samples: 0 s of audio",
        "absent.wav does not exist",
        "zero.wav is empty: it has 0 bytes",
        "samples.raw is not audio",
        "folder is an empty folder",
    ):
        assert text in output.err


def test_a_folder_stands_for_its_files(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [write(tmp_path / "a.wav"), write(tmp_path / "b.flac")]
    (tmp_path / ".hidden").write_text("")
    assert transcription.main([f"model={bundle}", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == list(map(str, files))
    (tmp_path / "notes.txt").write_text("no audio")
    (tmp_path / "more").mkdir()
    assert transcription.main([f"model={bundle}", str(tmp_path)]) == 1
    output = capsys.readouterr()
    assert output.out.splitlines() == lines
    assert "notes.txt is not audio" in output.err
    assert "more is a folder within a folder; give it by itself" in output.err


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_samples_that_are_no_numbers(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], value: float
) -> None:
    samples = torch.zeros(8_000, 2)
    samples[4_000:4_003, 1] = value
    soundfile.write(tmp_path / "bad.wav", samples.numpy(), 16_000, subtype="FLOAT")
    assert transcription.main([f"model={bundle}", str(tmp_path / "bad.wav")]) == 1
    message = capsys.readouterr().err
    assert "bad.wav holds 3 samples that are no numbers (NaN or infinity), the first at 0.250 s" in message


@pytest.mark.parametrize(("rate_hz", "channels"), [(8_000, 1), (48_000, 2)])
def test_other_rates_than_the_model_s(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], rate_hz: int, channels: int
) -> None:
    assert transcription.main([f"model={bundle}", str(write(tmp_path / "x.wav", rate_hz, channels))]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_a_rate_that_no_recorder_has(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "x.wav", torch.zeros(100).numpy(), 10)
    with pytest.raises(UserError, match=r"x\.wav claims 10 samples a second; speech has 1000 to 400000"):
        transcription.read_audio(tmp_path / "x.wav")


def test_no_bundle(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert transcription.main([str(tmp_path / "none"), "a.wav"]) == 1
    assert "error: " in capsys.readouterr().err


def test_a_clip_shorter_than_a_frame(bundle: Path, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "click.wav", torch.zeros(40).numpy(), 16_000)
    assert transcription.main([f"model={bundle}", str(tmp_path / "click.wav")]) == 0


def test_a_model_that_streams(fitted_run, tiny_corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chapter = tiny_corpus / "LibriSpeech" / "dev-tiny" / "11" / "1"
    name, text = (chapter / "11-1.trans.txt").read_text().splitlines()[0].split(" ", 1)
    assert transcription.main([f"model={fitted_run('stateless', 8)}", str(chapter / f"{name}.flac")]) == 0
    assert capsys.readouterr().out == f"{text}\n"
