"""Writes the same speech in each format that people bring."""

import csv
import gzip
import json
import os
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from nibble.conventions import SAMPLE_RATE_HZ
from nibble.data.audio import source
from nibble.data.cuts import Cuts

Rows = list[dict]


def rows_of(cuts: Cuts) -> Rows:
    return [
        {
            "id": cut.id,
            "audio": os.path.abspath(source(cut)),
            "text": cut.supervisions[0].text,
            "speaker": cut.supervisions[0].speaker,
            "duration": cut.duration,
        }
        for cut in cuts
    ]


def write_lines(file: Path, rows: Rows) -> Path:
    content = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    file.write_bytes(gzip.compress(content) if file.suffix == ".gz" else content)
    return file


def write_manifest(folder: Path, rows: Rows) -> Path:
    lines = [
        {"audio_filepath": row["audio"], **{k: row[k] for k in ("id", "text", "speaker", "duration")}} for row in rows
    ]
    return write_lines(folder / "part.jsonl", lines)


def write_table(folder: Path, rows: Rows) -> Path:
    columns = {"path": "audio", "sentence": "text", "client_id": "speaker", "id": "id"}
    with (folder / "part.tsv").open("w", newline="") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\r\n")
        writer.writerow(columns)
        writer.writerows([row[what] for what in columns.values()] for row in rows)
    return folder / "part.tsv"


def write_kaldi(folder: Path, rows: Rows) -> Path:
    for name, what in (("wav.scp", "audio"), ("text", "text"), ("utt2spk", "speaker")):
        (folder / name).write_text("".join(f"{row['id']} {row[what]}\n" for row in rows))
    return folder


def recording(row: dict) -> dict:
    sources = [{"type": "file", "channels": [0], "source": row["audio"]}]
    samples = round(row["duration"] * SAMPLE_RATE_HZ)
    times = {"sampling_rate": SAMPLE_RATE_HZ, "num_samples": samples, "duration": row["duration"]}
    return {"id": row["id"], "sources": sources, **times}


def supervision(row: dict) -> dict:
    times = {"start": 0.0, "duration": row["duration"], "channel": 0}
    return {"id": row["id"], "recording_id": row["id"], **times, "text": row["text"], "speaker": row["speaker"]}


def write_cuts(folder: Path, rows: Rows) -> Path:
    def cut(row: dict) -> dict:
        times = {"start": 0.0, "duration": row["duration"], "channel": 0}
        return {
            "id": row["id"],
            **times,
            "supervisions": [supervision(row)],
            "recording": recording(row),
            "type": "MonoCut",
        }

    return write_lines(folder / "cuts_part.jsonl.gz", [cut(row) for row in rows])


def write_supervisions(folder: Path, rows: Rows) -> Path:
    write_lines(folder / "x_recordings_part.jsonl.gz", [recording(row) for row in rows])
    return write_lines(folder / "x_supervisions_part.jsonl.gz", [supervision(row) for row in rows])


def write_hugging_face(folder: Path, rows: Rows) -> Path:
    """As `Dataset.save_to_disk` of datasets 4 does it, in two files."""
    import pyarrow as pa

    (part := folder / "saved").mkdir()
    audio = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    schema = pa.schema({"id": pa.string(), "audio": audio, "text": pa.string(), "speaker": pa.string()})
    names = []
    for number, some in enumerate((rows[:2], rows[2:])):
        names.append({"filename": f"data-{number:05}-of-00002.arrow"})
        table = [
            {
                **{key: row[key] for key in ("id", "text", "speaker")},
                # A file that is not there was named, and not put into the data set.
                "audio": {
                    "bytes": Path(row["audio"]).read_bytes() if Path(row["audio"]).is_file() else None,
                    "path": row["audio"],
                },
            }
            for row in some
        ]
        with pa.OSFile(str(part / names[-1]["filename"]), "wb") as file, pa.ipc.new_stream(file, schema) as stream:
            stream.write_batch(pa.RecordBatch.from_pylist(table, schema))
    (part / "state.json").write_text(json.dumps({"_data_files": names, "_indices_data_files": None}))
    (part / "dataset_info.json").write_text("{}")
    return part


WRITERS: dict[str, Callable[[Path, Rows], Path]] = {  # (folder, utterances) -> the path of the part
    "cuts": write_cuts,
    "supervisions": write_supervisions,
    "manifest": write_manifest,
    "Kaldi": write_kaldi,
    "table": write_table,
    **({"Hugging Face": write_hugging_face} if find_spec("pyarrow") else {}),
}
