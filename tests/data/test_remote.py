"""Audio by URL, from a server on this machine and from fsspec's memory."""

import json
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import soundfile

from nibble.conventions import SAMPLE_RATE_HZ
from nibble.data import remote
from nibble.data.audio import decode, source
from nibble.data.remote import fetched, is_url
from nibble.data.sources.part import check_part, read_part
from nibble.data.sources.recognise import source_of
from nibble.errors import UserError

TONE = (0.3 * np.sin(np.arange(2 * SAMPLE_RATE_HZ) / 5)).astype(np.float32)


ASKED: list[str] = []


class Quiet(SimpleHTTPRequestHandler):
    """A server that notes what it is asked for, and prints nothing."""

    def log_request(self, *_: object) -> None:
        ASKED.append(self.path)

    def log_error(self, *_: object) -> None:
        pass


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """(URL, folder) of a server on this machine."""
    (folder := tmp_path / "served").mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}", folder
    server.shutdown()


def manifest(file: Path, *rows: dict) -> Path:
    file.write_text("".join(json.dumps({"text": "a", **row}) + "\n" for row in rows))
    return file


def test_audio_of_a_manifest_is_fetched_once_and_cut(served, tmp_path: Path) -> None:
    url, folder = served
    soundfile.write(folder / "long one.wav", TONE, SAMPLE_RATE_HZ)
    place = f"{url}/long%20one.wav"
    rows = [{"audio_filepath": place, "offset": start, "duration": 1.0} for start in (0.0, 1.0)]
    path = manifest(tmp_path / "train.jsonl", *rows, {"audio_filepath": f"{url}/absent.wav"})
    found, _ = check_part(source_of(path), tmp_path / "cache")
    problem = found.found.problems["audio that can't be used"]
    assert problem.count == 1
    assert "absent.wav cannot be read: FileNotFoundError" in str(problem.examples)
    manifest(path, *rows)
    for _ in range(2):
        cuts = list(read_part(source_of(path), tmp_path / "cache"))
    samples = np.concatenate([decode(source(cut)) for cut in cuts])
    np.testing.assert_allclose(samples, TONE, atol=1e-4)
    before = len(ASKED)
    list(read_part(source_of(path), tmp_path / "cache"))
    assert len(ASKED) == before, "it is kept"


def test_cuts_may_name_a_url(served, tmp_path: Path) -> None:
    url, folder = served
    soundfile.write(folder / "a.flac", TONE, SAMPLE_RATE_HZ)
    recording = {
        "id": "r",
        "sources": [{"type": "url", "channels": [0], "source": f"{url}/a.flac"}],
        "sampling_rate": SAMPLE_RATE_HZ,
        "num_samples": len(TONE),
        "duration": 2.0,
    }
    said = [{"id": "u", "recording_id": "r", "start": 0.0, "duration": 2.0, "text": "a"}]
    cut = {"id": "c", "type": "MonoCut", "start": 0, "duration": 2.0, "recording": recording, "supervisions": said}
    (tmp_path / "cuts.jsonl").write_text(json.dumps(cut) + "\n")
    assert [one.id for one in read_part(source_of(tmp_path / "cuts.jsonl"), tmp_path / "cache")] == ["u"]


def test_any_file_system_of_fsspec_in_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fsspec = pytest.importorskip("fsspec")
    with fsspec.open("memory://folder/a.wav", "wb") as file:
        file.write(b"x" * 1000)
    with pytest.raises(UserError, match="audio is opened by path or by https://, http://, s3://, gs://"):
        fetched("memory://folder/a.wav").__enter__()
    monkeypatch.setattr(remote, "SCHEMES", ("memory",))
    with fetched("memory://folder/a.wav") as path:
        assert (path.suffix, path.read_bytes()) == (".wav", b"x" * 1000)
    assert not path.exists()
    monkeypatch.setattr(remote, "MAX_BYTES", 999)
    with pytest.raises(UserError, match="more than 999 bytes"):
        fetched("memory://folder/a.wav").__enter__()


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "ftp://a/b.wav", "https://a/b.zip::file:///c", "zip://a::http://b"]
)
def test_other_schemes_are_refused(url: str, tmp_path: Path) -> None:
    assert is_url(url)
    path = manifest(tmp_path / "train.jsonl", {"audio_filepath": url})
    with pytest.raises(UserError, match="audio is opened by path or by"):
        read_part(source_of(path), tmp_path / "cache")


def test_paths_are_no_urls() -> None:
    assert not any(map(is_url, ("a.wav", "/a/b.wav", "c:/a.wav", "a//b.wav", "://a", "")))
