"""Connected digits by real people, strung together from the recordings of the free-spoken-digit-dataset.

https://github.com/Jakobovski/free-spoken-digit-dataset (CC BY-SA 4.0): recordings/DIGIT_SPEAKER_INDEX.wav at 8 kHz.
"""

import re
from functools import cache
from pathlib import Path
from random import Random

import numpy as np
from numpy.typing import NDArray

from nibble.conventions import SAMPLE_RATE_HZ
from nibble.data.corpora.layout import Speaker, Utterance, write_chapter, write_speakers
from nibble.data.samples import at_16_khz, opened, read
from nibble.errors import UserError
from nibble.progress import track
from nibble.writing import make_folder_once

WORDS = ("ZERO", "ONE", "TWO", "THREE", "FOUR", "FIVE", "SIX", "SEVEN", "EIGHT", "NINE")
RECORDING = re.compile(r"([0-9])_([a-z]+)_([0-9]+)\.wav")
# Part -> indices of the recordings it may use, and how often it uses each.
PARTS = {
    "train-digits": (range(5, 50), 3),
    "dev-digits": (range(2, 5), 5),
    "test-digits": (range(2), 5),
}
FIRST_CHAPTER = {"train-digits": 100, "dev-digits": 200, "test-digits": 300}
FIRST_SPEAKER = 1001
CHAPTER_UTTERANCES = 50
BUILT = "digits-fsdd"  # folder of what is built here
DIGITS = (2, 7)  # least and most in an utterance
GAP_S = (0.03, 0.15)  # least and most pause between two

Recordings = dict[str, dict[tuple[int, int], Path]]  # speaker -> (digit, index) -> file


def build_digits(fsdd_dir: Path, root: Path) -> Path:
    """The folder of the digits corpus below `root`, built from a clone of the data set if it isn't there.

    Parts train-digits, dev-digits and test-digits have the same speakers and share no recording.

    Raises:
        UserError: `fsdd_dir` is no clone of the data set, a recording is damaged, or the disk is full.
    """
    folder = root / BUILT
    if not folder.exists():
        recordings = find_recordings(fsdd_dir)
        make_folder_once(folder, lambda partial: _build(partial, recordings))
    return folder


def find_recordings(fsdd_dir: Path) -> Recordings:
    """Every recording of the clone.

    Raises:
        UserError: the folder is missing or has no recordings, or a speaker lacks a digit in one of the parts.
    """
    clone = "a clone of https://github.com/Jakobovski/free-spoken-digit-dataset"
    source = fsdd_dir / "recordings"
    if not source.is_dir():
        raise UserError(f"data.fsdd_dir: no folder {source}; give {clone}")
    recordings: Recordings = {}
    for path in sorted(source.iterdir()):
        if match := RECORDING.fullmatch(path.name):
            digit, speaker, index = match.groups()
            recordings.setdefault(speaker, {})[int(digit), int(index)] = path
    if not recordings:
        raise UserError(f"data.fsdd_dir: {source} has no file like 7_jackson_32.wav; give {clone}")
    for speaker, files in recordings.items():
        for part, (indices, _) in PARTS.items():
            absent = [WORDS[digit] for digit in range(10) if not any((digit, index) in files for index in indices)]
            if absent:
                raise UserError(
                    f"data.fsdd_dir: {source} has no {', '.join(absent)} by {speaker} for {part} "
                    f"(recordings {indices.start} to {indices.stop - 1}); give the whole of {clone}"
                )
    return recordings


def _build(folder: Path, recordings: Recordings) -> None:
    """Write the whole corpus into the empty `folder`."""
    speakers = []
    work = [(part, name) for part in PARTS for name in sorted(recordings)]
    for part, name in track(work, "building the digits corpus: speakers", len(work)):
        speaker = FIRST_SPEAKER + sorted(recordings).index(name)
        random = Random(f"nibble digits {part} {name}")
        utterances = [_string(digits, recordings[name], random) for digits in _deal(part, recordings[name], random)]
        for start in range(0, len(utterances), CHAPTER_UTTERANCES):
            chapter = FIRST_CHAPTER[part] + start // CHAPTER_UTTERANCES
            write_chapter(folder, part, speaker, chapter, utterances[start : start + CHAPTER_UTTERANCES])
        duration_s = sum(len(utterance.samples) for utterance in utterances) / SAMPLE_RATE_HZ
        speakers.append(Speaker(speaker, "M", part, duration_s, name))
    write_speakers(folder, speakers)


def _deal(part: str, files: dict[tuple[int, int], Path], random: Random) -> list[list[tuple[int, int]]]:
    """Strings of two to seven (digit, index) that use each recording of the part equally often."""
    indices, passes = PARTS[part]
    deck: list[tuple[int, int]] = []
    for _ in range(passes):
        recordings = [key for key in sorted(files) if key[1] in indices]
        random.shuffle(recordings)
        deck += recordings
    strings = []
    while deck:
        count = random.randint(*DIGITS)
        if len(deck) - count < DIGITS[0]:  # one digit left over would be no utterance
            count = len(deck) if len(deck) <= DIGITS[1] else len(deck) - DIGITS[0]
        strings.append(deck[:count])
        del deck[:count]
    return strings


def _string(digits: list[tuple[int, int]], files: dict[tuple[int, int], Path], random: Random) -> Utterance:
    """The recordings one after another, with gaps between them.

    A gap is noise as loud as the quietest moment of these recordings: digital silence would mark where digits begin.
    """
    spoken = [read_recording(files[digit]) for digit in digits]
    floor = min(quietest(samples) for samples in spoken)
    noise = np.random.default_rng(random.getrandbits(64))
    pieces = [spoken[0]]
    for samples in spoken[1:]:
        gap = noise.standard_normal(round(random.uniform(*GAP_S) * SAMPLE_RATE_HZ))
        pieces += [np.rint(floor * gap).astype(np.int16), samples]
    return Utterance(" ".join(WORDS[digit] for digit, _ in digits), np.concatenate(pieces))


def quietest(samples: NDArray[np.int16]) -> float:
    """The root mean square of the quietest 10 ms; 0 for less than that."""
    frame = SAMPLE_RATE_HZ // 100
    frames = samples[: len(samples) // frame * frame].astype(np.float64).reshape(-1, frame)
    return float(np.sqrt((frames**2).mean(axis=1)).min()) if len(frames) else 0.0


@cache
def read_recording(path: Path) -> NDArray[np.int16]:
    """The recording at 16 kHz, one channel.

    Raises:
        UserError: it can't be read; the text names it.
    """
    try:
        with opened(path) as file:
            wave = at_16_khz(read(file, str(path), dtype="float64"), file.samplerate)
    except UserError as error:
        raise UserError(f"data.fsdd_dir: {error}; clone the data set anew") from error
    return np.rint(np.clip(wave * 32768, -32768, 32767)).astype(np.int16)
