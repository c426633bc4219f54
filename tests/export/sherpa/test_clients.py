"""An exported folder in Node and in WebAssembly, loaded as their users would: the text is that of Python."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import soundfile

from nibble.export.options import Encoding

CLIENTS = Path(__file__).parents[1] / "clients"
NODE = shutil.which("node")
pytestmark = [
    pytest.mark.skipif(NODE is None, reason="no node on PATH: apt-get install nodejs npm"),
    pytest.mark.skipif(
        not (CLIENTS / "node_modules").is_dir(),
        reason="sherpa-onnx for Node is not installed: npm install --prefix tests/export/clients",
    ),
]
MODELS = [("stateless", None), ("lstm", None), ("stateless", 8)]  # predictor, frames of a chunk
TAIL_S = 0.37  # which README.md tells to append after speech, with chunks of 8 frames


@pytest.fixture(params=MODELS, ids=str)
def folder(request: pytest.FixtureRequest, exported, tiny_corpus: Path, tmp_path: Path) -> Path:
    """An exported folder with one recording in it, as its README.md has it: speech.wav."""
    predictor, chunk = request.param
    source = exported(predictor, Encoding.w4a8, chunk)[2]
    copied = Path(shutil.copytree(source, tmp_path / "sherpa"))
    recording = sorted((tiny_corpus / "LibriSpeech" / "dev-tiny").rglob("*.flac"))[0]
    soundfile.write(copied / "speech.wav", *soundfile.read(recording), subtype="PCM_16")
    return copied


def block(folder: Path, language: str) -> str:
    """The lines that README.md tells to type."""
    found = re.search(rf"```{language}\n(.*?)```", (folder / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert found
    return found[1]


def node(folder: Path, *words: str) -> str:
    """What Node prints last."""
    there = {**os.environ, "NODE_PATH": str(CLIENTS / "node_modules")}
    done = subprocess.run([str(NODE), *words], cwd=folder, env=there, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1].strip()


@pytest.fixture
def in_python(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """The text that the lines for Python find."""
    pytest.importorskip("sherpa_onnx", reason="sherpa-onnx is not installed: pip install -e '.[export]'")
    monkeypatch.chdir(folder)
    exec(block(folder, "python"), {})
    said = capsys.readouterr().out.partition("[")[0].strip()
    assert len(said) > 10
    return said


def test_node_finds_the_text_that_python_finds(folder: Path, in_python: str) -> None:
    assert node(folder, "-e", block(folder, "js")) == in_python


def test_webassembly_finds_the_text_that_python_finds(folder: Path, in_python: str) -> None:
    mode = "online" if "OnlineRecognizer" in block(folder, "python") else "offline"
    assert node(folder, str(CLIENTS / "wasm.cjs"), mode, str(TAIL_S), "speech.wav") == in_python
