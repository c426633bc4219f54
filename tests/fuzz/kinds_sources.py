"""Corpora in other people's formats: manifests, tables, Kaldi folders and Lhotse's files, broken and hostile."""

import gzip
import json
import tempfile
import unicodedata
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from random import Random

import numpy as np
from formats import WRITERS, rows_of
from fuzzing import COMMAND, Kind, Write
from kinds_data import PART, write_corpus
from mutations import RAW, as_json, broken, hostile

from nibble.data.audio import decode, source
from nibble.data.sources.librispeech import LibriSpeech
from nibble.data.sources.part import Reading, read_part
from nibble.data.sources.recognise import source_of

COUNT = 60
SPEECH = "speech"
PLACES = [f"pipe:{COMMAND}", f"{COMMAND} |", f"| {COMMAND}", "http://127.0.0.1:9/a.wav", "/dev/zero", "/proc/self/mem"]
PLACES += [
    "../../../../etc/passwd",
    "/",
    ".",
    "a\0b",
    "x" * 5_000,
    "1/1/1-1-0000.wav[0:9999999999]",
    "a.tar:0:99999999999",
]


@cache
def good(name: str) -> dict[str, bytes]:
    """File name -> content of a part in one format, its audio as relative paths."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write_corpus(folder)
        cuts = read_part(LibriSpeech(folder / "speech" / PART), folder / "cache")
        rows = rows_of(cuts)
        for row in rows:
            row["audio"] = str(Path(row["audio"]).relative_to(folder))
        (written := folder / "part").mkdir()
        WRITERS[name](written, rows)
        return {file.name: file.read_bytes() for file in sorted(written.iterdir())}


def cases(name: str, seed: int, _count: int) -> Iterator[tuple[str, Write]]:
    """Broken bytes, lines with hostile values, and places that are no audio file."""
    files = good(name)
    yield "intact", partial(_write, files=files)
    for number in range(10**9):
        draw = Random(f"{name} {seed} {number}")
        file = draw.choice(list(files))
        packed = file.endswith(".gz")
        content = gzip.decompress(files[file]) if packed else files[file]
        how = draw.choice(["bytes", "line", "place"])
        if how == "bytes":
            what, content = broken(content, draw)
        elif how == "place":
            place = draw.choice(PLACES)
            inner = json.dumps(place)[1:-1] if ".json" in file else place
            what = f"{place!r:.40}"
            content = content.replace(b"speech/dev-x/1/1/1-1-0000.wav", inner.encode())
            if draw.random() < 0.5:
                content = content.replace(b'"file"', draw.choice([b'"command"', b'"url"', b'"memory"', b'"shar"']))
        else:
            lines = content.splitlines()
            at = draw.randrange(len(lines))
            if ".json" in file and draw.random() < 0.8:
                what, value = hostile(json.loads(lines[at]), draw)
                lines[at] = as_json(value, draw)
            else:
                lines[at] = draw.choice(RAW)
                what = f"line {at}: {lines[at][:30]!r}"
            content = b"\n".join(lines) + b"\n"
        if packed:
            content = gzip.compress(content, mtime=0)
            if draw.random() < 0.2:
                what, content = broken(content, draw)
        yield f"{file}: {what}", partial(_write, files={**files, file: content})


def _write(folder: Path, files: dict[str, bytes]) -> None:
    write_corpus(folder)
    for name, content in files.items():
        (folder / name).write_bytes(content)


def load(name: str, folder: Path) -> None:
    """Whatever loads has audio that is as long as is said, and text that stands in its files."""
    first = next(name for name in good(name) if "recordings" not in name)
    path = folder if name == "Kaldi" else folder / first
    cuts = read_part(source_of(path), folder / "cache", Reading(max_bad_utterances=100))
    said = _texts(folder, list(good(name)))
    for cut in cuts:
        assert cut.supervisions[0].text
        assert all(word in said for word in cut.supervisions[0].text.split())
        samples = decode(source(cut))
        assert len(samples) == cut.num_samples
        assert np.isfinite(samples).all()
    again = read_part(source_of(path), folder / "cache", Reading(max_bad_utterances=100))
    assert [cut.id for cut in again] == [cut.id for cut in cuts], "another time, another part"


def _texts(folder: Path, names: list[str]) -> str:
    """All that the files say, as text and with JSON's escapes undone."""
    found = []
    for name in names:
        content = (folder / name).read_bytes()
        text = (gzip.decompress(content) if name.endswith(".gz") else content).decode(errors="surrogateescape")
        found.append(text)
        if ".json" in name:
            for line in text.split("\n"):
                try:
                    found.append(json.dumps(json.loads(line), ensure_ascii=False))
                except (ValueError, RecursionError):
                    continue
    return unicodedata.normalize("NFC", "\n".join(found).replace("\ufeff", ""))


def _kind(name: str) -> Kind:
    write: Callable[[int, int], Iterator[tuple[str, Write]]] = partial(cases, name)
    return Kind(name, write, partial(load, name), COUNT)


KINDS = [_kind(name) for name in ("manifest", "table", "Kaldi", "cuts", "supervisions")]
