"""Writes the same speech in each format that people bring."""

import csv
import gzip
import json
import os
from collections.abc import Callable
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


WRITERS: dict[str, Callable[[Path, Rows], Path]] = {  # (folder, utterances) -> the path of the part
    "cuts": write_cuts,
    "supervisions": write_supervisions,
    "manifest": write_manifest,
    "Kaldi": write_kaldi,
    "table": write_table,
}
