import io
import json
from pathlib import Path

import pytest
import soundfile
import torch

from nibble.commands import transcribe
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
    assert transcribe.main([f"model={bundle}", *map(str, files)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == list(map(str, files))
    assert transcribe.main([f"model={bundle}", str(files[0])]) == 0
    (alone,) = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{files[0]}: {alone}"


def test_timestamps_are_times_in_the_file(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = load_checkpoint(bundle)
    up, stop = loaded.tokenizer.encode("UP"), loaded.tokenizer.encode("STOP")
    found = [Hypothesis([*up, *stop], [0] * len(up) + [5] * len(stop), 0.0)]
    monkeypatch.setattr(transcription, "recognise", lambda *_: found)
    assert transcribe.main([f"model={bundle}", str(write(tmp_path / "a.wav")), "timestamps=true"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0] == "UP STOP"
    assert [line.split() for line in out[1:]] == [["0.00", "s", "UP"], ["0.20", "s", "STOP"]]


def test_a_beam_of_one_or_more(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert transcribe.main([f"model={bundle}", str(write(tmp_path / "a.wav")), "beam_width=2"]) == 0
    assert transcribe.main([f"model={bundle}", str(tmp_path / "a.wav"), "beam_width=0"]) == 1
    assert "error: beam_width=0; give 1 to 1000" in capsys.readouterr().err


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
    assert transcribe.main([f"model={bundle}", *map(str, [*bad, good])]) == 1
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
    assert transcribe.main([f"model={bundle}", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == list(map(str, files))
    (tmp_path / "notes.txt").write_text("no audio")
    (tmp_path / "more").mkdir()
    assert transcribe.main([f"model={bundle}", str(tmp_path)]) == 1
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
    assert transcribe.main([f"model={bundle}", str(tmp_path / "bad.wav")]) == 1
    message = capsys.readouterr().err
    assert "bad.wav holds 3 samples that are not numbers (NaN or infinity), the first at 0.250 s" in message


@pytest.mark.parametrize(("rate_hz", "channels"), [(8_000, 1), (48_000, 2)])
def test_other_rates_than_the_model_s(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], rate_hz: int, channels: int
) -> None:
    assert transcribe.main([f"model={bundle}", str(write(tmp_path / "x.wav", rate_hz, channels))]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_no_bundle(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert transcribe.main([f"model={tmp_path / 'none'}", "a.wav"]) == 1
    assert "error: " in capsys.readouterr().err
    assert transcribe.main([str(tmp_path), "a.wav"]) == 1
    assert "error: no model; give model=VALUE" in capsys.readouterr().err


def test_a_clip_shorter_than_a_frame(bundle: Path, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "click.wav", torch.zeros(40).numpy(), 16_000)
    assert transcribe.main([f"model={bundle}", str(tmp_path / "click.wav")]) == 0


def test_a_model_that_streams(fitted_run, tiny_corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chapter = tiny_corpus / "LibriSpeech" / "dev-tiny" / "11" / "1"
    name, text = (chapter / "11-1.trans.txt").read_text().splitlines()[0].split(" ", 1)
    assert transcribe.main([f"model={fitted_run('stateless', 8)}", str(chapter / f"{name}.flac")]) == 0
    assert capsys.readouterr().out == f"{text}\n"


WRONG = {
    "format=strt": "format is 'strt'; give one of txt, json, srt, vtt, ctm",
    "format=json timestamps=true": "timestamps=true goes with format=txt; json has the times of words itself",
    "device=gpu": "device is 'gpu'; give one of cpu, cuda, auto",
    "-": "the file - is a microphone, which needs stream=true and a model that streams",
    "stream=true beam_width=2": "leave beam_width out",
    "format=srt b.wav": "format=srt of several files needs output=DIR",
}


@pytest.mark.parametrize("words", WRONG)
def test_options_that_cannot_be(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "a.wav")
    write(tmp_path / "b.wav")
    assert transcribe.main([f"model={bundle}", "a.wav", *words.split()]) == 1
    assert WRONG[words] in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["txt", "json", "srt", "vtt", "ctm"])
def test_a_file_of_each_recording(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    loaded = load_checkpoint(bundle)
    up = Hypothesis(loaded.tokenizer.encode("UP"), [3] * len(loaded.tokenizer.encode("UP")), 0.0)
    monkeypatch.setattr(transcription, "recognise", lambda *_: [up])
    words = [f"model={bundle}", str(write(tmp_path / "a b.wav")), f"format={kind}"]
    assert transcribe.main(words) == 0
    printed = capsys.readouterr().out
    assert "UP" in printed
    assert transcribe.main([*words, f"output={tmp_path / 'out'}"]) == 0
    assert capsys.readouterr().out == ""
    assert (tmp_path / "out" / f"a b.{kind}").read_text() == printed


def test_two_recordings_of_one_name(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [write(tmp_path / "a.wav"), write(tmp_path / "a.flac")]
    assert transcribe.main([f"model={bundle}", *map(str, files), f"output={tmp_path / 'out'}"]) == 1
    assert "would both be written to" in capsys.readouterr().err
    assert list((tmp_path / "out").iterdir()) == []


def test_text_while_it_is_heard(
    fitted_run, tiny_corpus: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a file and from a microphone, a model that streams finds what it finds in the whole utterance."""
    chapter = tiny_corpus / "LibriSpeech" / "dev-tiny" / "11" / "1"
    name, text = (chapter / "11-1.trans.txt").read_text().splitlines()[0].split(" ", 1)
    model = f"model={fitted_run('stateless', 8)}"
    assert transcribe.main([model, str(chapter / f"{name}.flac"), "stream=true"]) == 0
    assert capsys.readouterr().out == f"{text}\n"
    samples, _ = soundfile.read(chapter / f"{name}.flac", dtype="int16")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(samples.astype("<i2").tobytes())))
    assert transcribe.main([model, "-", "stream=true", "format=json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["text"] == text
    assert [word["text"] for word in said["words"]] == text.split()
    assert said["duration_s"] == pytest.approx(len(samples) / 16_000, abs=1e-3)


def test_a_model_of_whole_utterances_does_not_stream(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert transcribe.main([f"model={bundle}", str(write(tmp_path / "a.wav")), "stream=true"]) == 1
    assert "this model encodes whole utterances" in capsys.readouterr().err
