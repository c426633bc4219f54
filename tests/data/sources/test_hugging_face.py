"""Data sets that Hugging Face's `datasets` saved: beyond the contract in test_sources.py."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from nibble.conventions import SAMPLE_RATE_HZ
from nibble.data.audio import decode, source
from nibble.data.sources.hugging_face import HuggingFace
from nibble.data.sources.part import check_part, read_part
from nibble.data.sources.recognise import parts_in, select_parts, source_of
from nibble.errors import UserError

pa = pytest.importorskip("pyarrow")


def flac(rate_hz: int, channels: int = 1) -> bytes:
    """A second of a tone."""
    tone = 0.3 * np.sin(2 * np.pi * 440 * np.arange(rate_hz) / rate_hz)
    file = io.BytesIO()
    soundfile.write(file, np.stack([tone] * channels, axis=1), rate_hz, format="FLAC")
    return file.getvalue()


def write(folder: Path, columns: dict, compression: str | None = None) -> Path:
    folder.mkdir(parents=True)
    table = pa.table(columns)
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with (
        pa.OSFile(str(folder / "data.arrow"), "wb") as file,
        pa.ipc.new_stream(file, table.schema, options=options) as s,
    ):
        s.write_table(table)
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": "data.arrow"}]}))
    (folder / "dataset_info.json").write_text("{}")
    return folder


def audio(*files: bytes | None) -> list[dict]:
    return [{"bytes": one, "path": f"clip {number}.flac"} for number, one in enumerate(files)]


def test_splits_are_parts_and_any_audio_is_converted(tmp_path: Path) -> None:
    said = {"sentence": ["eins", "zwei"], "client_id": ["a", "b"], "locale": ["de", "de"], "duration": [9.0, 9.0]}
    write(tmp_path / "set/train", {"audio": audio(flac(SAMPLE_RATE_HZ), flac(44_100, 2)), **said})
    write(tmp_path / "set/validation", {"audio": audio(flac(SAMPLE_RATE_HZ)), "sentence": ["drei"]})
    (tmp_path / "set/dataset_dict.json").write_text('{"splits": ["train", "validation"]}')
    assert list(parts_in(tmp_path / "set")) == ["train", "validation"]
    assert select_parts(tmp_path / "set", "dev", None, "") == ["validation"]
    cuts = list(read_part(source_of(tmp_path / "set/train"), tmp_path / "cache"))
    assert [cut.id for cut in cuts] == ["0-clip 0", "1-clip 1"]
    assert [cut.supervisions[0].text for cut in cuts] == ["eins", "zwei"]
    assert [(cut.supervisions[0].speaker, cut.supervisions[0].language) for cut in cuts] == [("a", "de"), ("b", "de")]
    assert [cut.duration for cut in cuts] == [1, 1], "of the audio, whatever the data set says"
    first, second = (decode(source(cut)) for cut in cuts)
    np.testing.assert_allclose(second[500:-500], first[500:-500], atol=2e-3)


def test_audio_by_path_and_columns_of_other_names(tmp_path: Path) -> None:
    (tmp_path / "a.flac").write_bytes(flac(SAMPLE_RATE_HZ))
    write(tmp_path / "set", {"wav": [str(tmp_path / "a.flac")], "said": ["eins"]})
    with pytest.raises(UserError, match=r"data\.columns=\[text:NAME\]"):
        read_part(source_of(tmp_path / "set"), tmp_path / "cache")
    part = source_of(tmp_path / "set", {"audio": "wav", "text": "said"})
    assert [cut.supervisions[0].text for cut in read_part(part, tmp_path / "cache")] == ["eins"]


def test_a_row_that_cannot_be_used_is_one_bad_utterance(tmp_path: Path) -> None:
    files = audio(flac(SAMPLE_RATE_HZ), b"no audio", None)
    write(tmp_path / "set", {"audio": files, "text": ["good", "bad", "absent"]})
    found, _ = check_part(source_of(tmp_path / "set"), tmp_path / "cache")
    assert len(found) == 1
    assert found.found.problems["audio that can't be used"].count == 2


def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    columns = {"audio": audio(flac(SAMPLE_RATE_HZ)), "text": ["a"]}
    packed = write(tmp_path / "packed", {**columns, "text": ["a" * 1000]}, "zstd")
    with pytest.raises(UserError, match="compressed"):
        list(HuggingFace(packed).claims())
    selected = write(tmp_path / "selected", columns)
    state = {"_data_files": [{"filename": "data.arrow"}], "_indices_data_files": [{"filename": "indices.arrow"}]}
    (selected / "state.json").write_text(json.dumps(state))
    with pytest.raises(UserError, match="flatten_indices"):
        list(HuggingFace(selected).claims())
    for name in ("../data.arrow", "data.txt", 7):
        (selected / "state.json").write_text(json.dumps({"_data_files": [{"filename": name}]}))
        with pytest.raises(UserError, match="no Arrow file beside it"):
            list(HuggingFace(selected).claims())
    broken = write(tmp_path / "broken", columns)
    content = (broken / "data.arrow").read_bytes()
    for damaged in (b"", content[: len(content) // 2], b"x" * 100):
        (broken / "data.arrow").write_bytes(damaged)
        with pytest.raises(UserError, match="save the data set again"):
            list(HuggingFace(broken).claims())
