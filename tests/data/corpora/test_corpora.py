"""Finding, downloading and dividing corpora, and what is said when one isn't there."""

import tarfile
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from nibble.data.corpora.locate import find_made, locate
from nibble.data.options import Corpus, DataConfig
from nibble.data.sources.recognise import parts_folder, select_parts
from nibble.errors import UserError


class RangeHandler(SimpleHTTPRequestHandler):
    """Serves files, and their ends to whoever asks for a range, as openslr.org does."""

    requests: list[str] = []  # noqa: RUF012

    def do_GET(self) -> None:
        path = Path(self.translate_path(self.path))
        if not path.is_file():
            self.send_error(404)
            return
        content = path.read_bytes()
        first = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").split("-")[0])
        self.requests.append(f"{path.name}:{first}")
        if first >= len(content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(content)}")
            self.end_headers()
            return
        self.send_response(206)
        self.send_header("Content-Length", str(len(content) - first))
        self.end_headers()
        self.wfile.write(content[first:])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(tiny_corpus: Path, tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """(address, folder) of a stand-in for openslr.org with the tiny corpus as mini LibriSpeech."""
    folder = tmp_path / "served" / "31"
    folder.mkdir(parents=True)
    for source, name in (("train-tiny", "train-clean-5"), ("dev-tiny", "dev-clean-2")):
        with tarfile.open(folder / f"{name}.tar.gz", "w:gz") as archive:
            archive.add(tiny_corpus / "LibriSpeech" / source, arcname=f"LibriSpeech/{name}")
    handler = partial(RangeHandler, directory=str(folder.parent))
    RangeHandler.requests.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as listening:
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{listening.server_port}", folder
        listening.shutdown()
        thread.join()


MINI = DataConfig(corpus=Corpus.mini_librispeech)


def test_download(server: tuple[str, Path], tmp_path: Path) -> None:
    name, folder = locate(MINI, tmp_path / "data", base_url=server[0])
    assert (name, folder) == ("mini_librispeech", tmp_path / "data" / "mini_librispeech" / "LibriSpeech")
    assert select_parts(folder, "train", None, "") == ["train-clean-5"]
    assert select_parts(folder, "dev", None, "") == ["dev-clean-2"]
    assert len(list(folder.rglob("*.flac"))) == 16
    RangeHandler.requests.clear()
    locate(MINI, tmp_path / "data", base_url=server[0])
    assert RangeHandler.requests == []


def test_download_goes_on_where_it_stopped(server: tuple[str, Path], tmp_path: Path) -> None:
    address, served = server
    whole = (served / "train-clean-5.tar.gz").read_bytes()
    target = tmp_path / "data" / "mini_librispeech"
    target.mkdir(parents=True)
    (target / "train-clean-5.tar.gz").write_bytes(whole[:10_000])
    locate(MINI, tmp_path / "data", base_url=address)
    assert "train-clean-5.tar.gz:10000" in RangeHandler.requests
    assert (target / "train-clean-5.tar.gz").read_bytes() == whole


def test_download_of_named_parts_only(server: tuple[str, Path], tmp_path: Path) -> None:
    data = DataConfig(corpus=Corpus.mini_librispeech, dev_parts=["dev-clean-2"])
    _, folder = locate(data, tmp_path / "data", base_url=server[0])
    assert [path.name for path in folder.iterdir()] == ["dev-clean-2"]


def test_broken_archive(server: tuple[str, Path], tmp_path: Path) -> None:
    path = server[1] / "dev-clean-2.tar.gz"
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(UserError, match=r"is not whole .*Start again and the download goes on"):
        locate(MINI, tmp_path / "data", base_url=server[0])


def test_download_refused(server: tuple[str, Path], tmp_path: Path) -> None:
    (server[1] / "dev-clean-2.tar.gz").unlink()
    with pytest.raises(UserError, match=r"can't download mini_librispeech .*404.*data.corpus_dir=DIR"):
        locate(MINI, tmp_path / "data", base_url=server[0])


def test_unknown_part_of_a_download(tmp_path: Path) -> None:
    data = DataConfig(corpus=Corpus.librispeech, dev_parts=["dev-claen"])
    with pytest.raises(UserError, match="librispeech has no part dev-claen; there is dev-clean"):
        locate(data, tmp_path, base_url="http://127.0.0.1:1")


@pytest.mark.parametrize("inner", [".", "LibriSpeech"])
def test_any_folder_in_the_layout(inner: str, tiny_corpus: Path, tmp_path: Path) -> None:
    data = DataConfig(corpus=Corpus.librispeech, corpus_dir=str(tiny_corpus / inner))
    assert locate(data, tmp_path) == (tiny_corpus.name, tiny_corpus / "LibriSpeech")


def test_parts_are_found_by_prefix_or_named(tiny_corpus: Path) -> None:
    folder = tiny_corpus / "LibriSpeech"
    assert select_parts(folder, "train", None, "data.train_parts") == ["train-tiny"]
    assert select_parts(folder, "train", ["dev-tiny", "test-tiny"], "data.train_parts") == ["dev-tiny", "test-tiny"]
    with pytest.raises(UserError, match=r"data.dev_parts: no part dev-tini in .*; there is dev-tiny"):
        select_parts(folder, "dev", ["dev-tini"], "data.dev_parts")


def test_missing_and_empty_folders(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data.corpus_dir: no folder .*absent"):
        locate(DataConfig(corpus=Corpus.digits, corpus_dir=str(tmp_path / "absent")), tmp_path)
    with pytest.raises(UserError, match=r"data.corpus_dir: .* is empty; LibriSpeech layout is"):
        parts_folder(tmp_path, "data.corpus_dir")


def test_digits_say_both_ways_to_get_them(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data.fsdd_dir=CLONE.*data.corpus_dir=DIR"):
        locate(DataConfig(corpus=Corpus.digits), tmp_path)


def test_digits_already_there(tiny_corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "digits").symlink_to(tiny_corpus)
    name, folder = locate(DataConfig(corpus=Corpus.digits), tmp_path)
    assert name == "digits"
    assert folder.samefile(tiny_corpus / "LibriSpeech")


def test_nothing_is_made_to_find_out_whether_it_is_there(tiny_corpus: Path, tmp_path: Path) -> None:
    assert find_made(DataConfig(corpus=Corpus.embedded, corpus_dir=str(tiny_corpus)), tmp_path) == tiny_corpus
    assert find_made(DataConfig(corpus=Corpus.embedded, corpus_dir=str(tmp_path / "none")), tmp_path) is None
    corpora = [
        (DataConfig(corpus=Corpus.embedded, embedded_hours=0.5), "embedded-0.5h-v3"),
        (DataConfig(corpus=Corpus.digits), "digits"),
        (DataConfig(corpus=Corpus.digits, fsdd_dir="clone"), "digits-fsdd"),
        (DataConfig(corpus=Corpus.librispeech), "librispeech"),
    ]
    assert [find_made(data, tmp_path) for data, _ in corpora] == [None] * len(corpora)
    assert list(tmp_path.iterdir()) == []
    for data, name in corpora:
        (tmp_path / name).mkdir()
        assert find_made(data, tmp_path) == tmp_path / name
