"""Measures time and memory before the first batch of a large corpus: a manifest of a million lines or more.

The lines are utterances of one to three seconds in recordings of ten minutes, which are silent and one file under many
names, so that the bench measures lines and not a drive. With a file for each utterance, opening them comes on top.
"""

import json
import os
import random
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from nibble import provenance
from nibble.bench.records import Measurement
from nibble.conventions import SAMPLE_RATE_HZ
from nibble.data.datamodule import SpeechDataModule
from nibble.data.options import Corpus, DataConfig
from nibble.features.options import FeatureConfig
from nibble.hardware import HardwareConfig
from nibble.memory import peak_bytes
from nibble.progress import track

LINES = 1_000_000
LIMIT_S = 600.0  # the time in which training on ten million lines must start
_A_RECORDING_S = 600
_WORDS = ("up", "down", "left", "right", "go", "stop", "yes", "no", "on", "off")


@dataclass(frozen=True)
class _Taken:
    """What one start took."""

    name: str
    wall_s: float
    peak_bytes: int | None


def measure(lines: int = LINES) -> list[Measurement]:
    """Measure the first start, which checks every line, and a second one, which reads the cache of the first."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_manifest(folder / "corpus", lines)
        taken = [_start(folder, called) for called in ("first batch of the first run", "first batch of a later run")]
    return [
        Measurement(
            bench="manifest",
            case=f"{lines:,} lines",
            contender=one.name,
            baseline="ten minutes",
            ratio=one.wall_s / LIMIT_S,
            median_ms=None,
            threads=1,
            **provenance.here(),
            bytes=one.peak_bytes,
            clock="wall",
            wall_ms=1000 * one.wall_s,
            rounds=1,
        )
        for one in taken
    ]


def write_manifest(folder: Path, lines: int) -> None:
    """Write a corpus of two parts: `train.jsonl` of `lines` lines, and `dev.jsonl` of ten."""
    folder.mkdir()
    soundfile.write(folder / "0.wav", np.zeros(_A_RECORDING_S * SAMPLE_RATE_HZ, np.int16), SAMPLE_RATE_HZ)
    draw = random.Random(1)
    recording, start_s = 0, 0.0
    with (folder / "train.jsonl").open("w") as train:
        for number in track(range(lines), "writing the manifest", lines):
            duration_s = round(draw.uniform(1, 3), 2)
            if start_s + duration_s > _A_RECORDING_S:
                recording, start_s = recording + 1, 0.0
                os.link(folder / "0.wav", folder / f"{recording}.wav")
            row: dict[str, object] = {
                "audio_filepath": f"{recording}.wav",
                "offset": round(start_s, 2),
                "duration": duration_s,
            }
            train.write(
                json.dumps({**row, "text": " ".join(draw.choices(_WORDS, k=4)), "speaker": number % 1000}) + "\n"
            )
            start_s += duration_s
    with (folder / "train.jsonl").open() as train, (folder / "dev.jsonl").open("w") as dev:
        dev.writelines(line for line, _ in zip(train, range(10), strict=False))


def _start(folder: Path, name: str) -> _Taken:
    """Everything before the first batch of a training, as `train.py` does it."""
    began_s = time.perf_counter()
    options = DataConfig(corpus=Corpus.librispeech, corpus_dir=str(folder / "corpus"))
    hardware = HardwareConfig(workers=0)
    data = SpeechDataModule(options, FeatureConfig(), hardware, seed=1, root=folder / "data")
    data.prepare_data()
    data.batches_per_epoch()
    next(iter(data.train_dataloader()))
    return _Taken(name, time.perf_counter() - began_s, peak_bytes())
