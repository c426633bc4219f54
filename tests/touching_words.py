"""A recording of words without a gap between them, and a recogniser of it that errs only on words that are cut.

A word is a level of its own, which lasts as long as that word always does, and begins with a peak.
"""

from itertools import pairwise
from typing import NamedTuple

import numpy as np

from nibble.conventions import SAMPLE_RATE_HZ
from nibble.data.samples import Samples

SPOKEN_S = {"UP": 0.25, "DOWN": 0.5, "LEFT": 0.45, "RIGHT": 0.6, "GO": 0.3, "STOP": 0.55, "YES": 0.4}
CUT = "OFF"  # what is heard where a word is cut
_WORDS = list(SPOKEN_S)
_LEAST_S = 0.1  # of a cut word, below which nothing is heard


class Speech(NamedTuple):
    """A recording and what is said in it."""

    samples: Samples  # (samples,)
    words: list[str]
    starts_s: list[float]


def speech(duration_s: float, seed: int = 0) -> Speech:
    """Words without a gap between them; the same one may come several times in a row."""
    random, words, starts_s, parts, said_s = np.random.default_rng(seed), [], [], [], 0.0
    while said_s < duration_s:
        word = _WORDS[int(random.integers(len(_WORDS)))]
        for _ in range(int(random.choice([1, 1, 1, 4]))):
            part = np.full(round(SPOKEN_S[word] * SAMPLE_RATE_HZ), 0.1 + 0.1 * _WORDS.index(word), np.float32)
            part[0] = 1.0
            parts.append(part)
            words.append(word)
            starts_s.append(said_s)
            said_s += SPOKEN_S[word]
    return Speech(np.concatenate(parts), words, starts_s)


def recognised(samples: Samples) -> list[tuple[str, float]]:
    """(word, start in seconds) of all words in a part of such a recording (samples,)."""
    starts = np.flatnonzero(samples > 0.95).tolist()
    edges = sorted({0, *starts, len(samples)})
    found = []
    for start, end in pairwise(edges):
        word = _WORDS[round((float(samples[end - 1]) - 0.1) / 0.1) % len(_WORDS)] if end - start > 1 else CUT
        lasts_s = (end - start) / SAMPLE_RATE_HZ
        whole = start in starts and abs(lasts_s - SPOKEN_S[word]) < 1e-3 if word != CUT else False
        if whole or lasts_s > _LEAST_S:
            found.append((word if whole else CUT, start / SAMPLE_RATE_HZ))
    return found
