"""The embedded corpus: the commands of `grammar` by the voices of `cast`, made on first use.

It is formant speech: for trying and testing, not for claims.
"""

import functools
import importlib.util
import json
import logging
import os
import struct
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random

import numpy as np
import soundfile
import torch
import torchaudio
from numpy.typing import NDArray

from nibble.conventions import SAMPLE_RATE_HZ
from nibble.data.corpora import grammar
from nibble.data.corpora.cast import FEMALE, Voice, voices
from nibble.data.corpora.layout import Speaker, Utterance, content_hash, files_hash, write_chapter, write_speakers
from nibble.data.corpora.voice import ESPEAK_RATE_HZ
from nibble.errors import UserError
from nibble.plain import build, parse
from nibble.progress import track
from nibble.writing import make_folder_once

logger = logging.getLogger(__name__)

VERSION = "v3"  # of the recipe: raise it when the sound or the text changes
PEAK_DB = (-12.0, -1.0)  # least and most, relative to full scale
SILENCE_SHARE = 0.01  # of the peak: quieter than this at either end is cut ...
MARGIN_S = 0.08  # ... but for this much

MEAN_DURATION_S = 1.995  # of an utterance, so that `hours` gives a number of utterances
EVALUATION_UTTERANCES = 300  # in dev and in test, whatever the hours, so that figures compare
HOURS = (0.1, 1000.0)  # least and most; training needs about 180 sentences to contain every word
# What `DEFAULT_HOURS` gave where the figures of the README were measured.
DEFAULT_HOURS = 2.0
DEFAULT_SHA256 = "896f0414fd2bc6c49830213a84c87acee2a21e74cd79a990ba8e8a5e6fb08ad1"


@dataclass(frozen=True)
class Made:
    """The contents of corpus.json, which describes a finished corpus; numbers by part."""

    hours: float  # as asked for
    content_sha256: str  # of the samples and transcripts
    files_sha256: str  # of the files' names and sizes
    voices: dict[str, int] = field(default_factory=dict)
    utterances: dict[str, int] = field(default_factory=dict)
    words: dict[str, int] = field(default_factory=dict)
    duration_s: dict[str, int] = field(default_factory=dict)


def make_embedded(root: Path, hours: float = DEFAULT_HOURS) -> Path:
    """The folder of the embedded corpus below `root`, made if it isn't there, else checked.

    Parts train-commands (about `hours`), dev-commands and test-commands (300 utterances each, the same for any hours).

    Raises:
        UserError: too few hours, eSpeak NG is missing or fails, the disk is full, or the corpus was altered.
    """
    if not HOURS[0] <= hours <= HOURS[1]:
        raise UserError(
            f"data.embedded_hours={hours:g}: give {HOURS[0]:g} (for every word to be heard) to {HOURS[1]:g}"
        )
    folder = embedded_folder(root, hours)
    make_folder_once(folder, lambda partial: _make(partial, hours))
    check(folder)
    return folder


def embedded_folder(root: Path, hours: float) -> Path:
    """Where `make_embedded` puts it."""
    return root / f"embedded-{hours:g}h-{VERSION}"


def check(folder: Path, full: bool = False) -> None:
    """Compare the files of a made corpus with what was written.

    `full` decodes every file; otherwise only names, sizes and transcripts are compared.

    Raises:
        UserError: a file is missing, was added or changed.
    """
    cure = f"Remove {folder}, and it is made again"
    try:
        made = build(Made, parse((folder / "corpus.json").read_bytes()))
    except (OSError, UserError) as error:
        raise UserError(f"{folder / 'corpus.json'} is missing or damaged. {cure}") from error
    try:
        same = files_hash(folder) == made.files_sha256
        same = same and (not full or content_hash(folder) == made.content_sha256)
    except soundfile.LibsndfileError:
        same = False
    if not same:
        raise UserError(f"the files in {folder} are not those that were made. {cure}")
    if made.hours == DEFAULT_HOURS and made.content_sha256 != DEFAULT_SHA256:
        logger.warning(
            "the embedded corpus differs in some samples from the one that the README's figures come from "
            "(another platform's arithmetic); your figures may differ a little"
        )


def _make(folder: Path, hours: float) -> None:
    """Write the whole corpus into the empty `folder`."""
    if importlib.util.find_spec("espeakng_loader") is None:
        raise UserError("the embedded corpus needs eSpeak NG: pip install -e .[embedded]")
    counts = dict.fromkeys(grammar.PARTS, EVALUATION_UTTERANCES)
    counts["train"] = round(hours * 3600 / MEAN_DURATION_S)
    work = []
    for part, count in counts.items():
        sentences, cast = grammar.sentences(part, count), voices(part)
        work += [(voice, sentences[i :: len(cast)]) for i, voice in enumerate(cast[:count])]

    speakers: list[Speaker] = []
    torch_threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the voices run side by side; a resampling over several threads would be slower
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        tasks = [pool.submit(_write_voice, folder, voice, sentences) for voice, sentences in work]
        try:
            for task in track(as_completed(tasks), "making the embedded corpus: voices", len(tasks)):
                speakers.append(task.result())
        finally:
            pool.shutdown(cancel_futures=True)
            torch.set_num_threads(torch_threads)
    speakers.sort(key=lambda speaker: speaker.id)
    write_speakers(folder, speakers)
    made = Made(
        hours=hours,
        content_sha256=content_hash(folder),
        files_sha256=files_hash(folder),
        voices={part: sum(voice.part == part for voice, _ in work) for part in counts},
        utterances=counts,
        words={
            part: sum(len(text.split()) for voice, texts in work if voice.part == part for text in texts)
            for part in counts
        },
        duration_s={
            part: round(sum(speaker.duration_s for speaker in speakers if speaker.part == f"{part}-commands"))
            for part in counts
        },
    )
    (folder / "corpus.json").write_text(json.dumps(asdict(made), indent=2) + "\n", encoding="utf-8")


def _write_voice(folder: Path, voice: Voice, sentences: list[str]) -> Speaker:
    """Speak, finish and write the sentences of one voice; returns its line of SPEAKERS.TXT."""
    random = Random(f"nibble level {voice.speaker}")
    spoken = speak(voice, sentences)
    utterances = [
        Utterance(sentence, finish(samples, voice.played_hz, random.uniform(*PEAK_DB)))
        for sentence, samples in zip(sentences, spoken, strict=True)
    ]
    write_chapter(folder, f"{voice.part}-commands", voice.speaker, 1, utterances)
    duration_s = sum(len(utterance.samples) for utterance in utterances) / SAMPLE_RATE_HZ
    sex = "F" if voice.variant in FEMALE.split(", ") else "M"
    name = f"{voice.name} {voice.rate_wpm} wpm pitch {voice.pitch} played at {voice.played_hz} Hz"
    return Speaker(voice.speaker, sex, f"{voice.part}-commands", duration_s, name)


def speak(voice: Voice, sentences: list[str]) -> list[NDArray[np.int16]]:
    """The samples of each sentence, as eSpeak NG says it in a process of its own; to be played at `voice.played_hz`.

    Raises:
        UserError: eSpeak NG failed; the text has its last words.
    """
    request = {
        "voice": voice.name,
        "rate": round(voice.rate_wpm * ESPEAK_RATE_HZ / voice.played_hz),
        "pitch": voice.pitch,
        "sentences": [sentence.lower() for sentence in sentences],
    }
    cure = "Install it anew: pip install --force-reinstall espeakng-loader. Or use another corpus: data.corpus_dir=DIR"
    done = subprocess.run(
        [sys.executable, "-m", "nibble.data.corpora.voice"], input=json.dumps(request).encode(), capture_output=True
    )
    if done.returncode != 0:
        reason = (done.stderr.decode(errors="replace").strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise UserError(f"eSpeak NG failed on voice {voice.name}: {reason}. {cure}")
    spoken, offset = [], 0
    for sentence in sentences:
        (count,) = struct.unpack_from("<I", done.stdout, offset)
        samples = np.frombuffer(done.stdout, "<i2", count, offset + 4)
        if not samples.any():
            raise UserError(f"eSpeak NG said nothing for {sentence!r} in voice {voice.name}. {cure}")
        spoken.append(samples)
        offset += 4 + 2 * count
    return spoken


def finish(samples: NDArray[np.int16], sample_rate: int, peak_db: float) -> NDArray[np.int16]:
    """Cut silence at the ends, resample to 16 kHz, and bring the highest peak to `peak_db` of full scale.

    Resampling is in double precision, so that rounding to 16 bits gives the same samples on every machine.
    """
    wave = samples.astype(np.float64)
    loud = np.flatnonzero(np.abs(wave) > SILENCE_SHARE * np.abs(wave).max())
    margin = round(MARGIN_S * sample_rate)
    kept = torch.from_numpy(wave[max(0, loud[0] - margin) : loud[-1] + margin])
    wave = resampler(sample_rate)(kept).numpy()
    peak = 32767 * 10 ** (peak_db / 20)
    return np.rint(wave * (peak / np.abs(wave).max())).astype(np.int16)


@functools.cache
def resampler(sample_rate: int) -> torchaudio.transforms.Resample:
    """From `sample_rate` to 16 kHz; kept, because its filter takes longer to compute than an utterance to resample."""
    return torchaudio.transforms.Resample(sample_rate, SAMPLE_RATE_HZ, lowpass_filter_width=16, dtype=torch.float64)
