"""Describes a part of a corpus: how much speech, which speakers, languages and characters."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from nibble.conventions import SAMPLE_RATE_HZ
from nibble.data.audio import Waveforms, source
from nibble.data.cuts import Cuts
from nibble.progress import track

RARE = 5  # a character that is in fewer utterances can't be learnt


@dataclass
class Survey:
    """What was found in the good utterances of a part."""

    durations_s: NDArray[np.float64]  # (N,)
    characters_per_s: list[float] = field(default_factory=list)
    speakers: Counter[str] = field(default_factory=Counter)
    languages: Counter[str] = field(default_factory=Counter)
    characters: Counter[str] = field(default_factory=Counter)  # in how many utterances each is
    words: int = 0
    upper: int = 0  # utterances without small letters, though they have letters
    lower: int = 0  # utterances without capitals

    @property
    def hours(self) -> float:
        """Of speech."""
        return float(self.durations_s.sum()) / 3600

    @property
    def rare(self) -> list[str]:
        """Characters in few utterances, the rarest first."""
        return sorted((sign for sign, count in self.characters.items() if count < RARE), key=self._rarity)

    def _rarity(self, sign: str) -> tuple[int, str]:
        return self.characters[sign], sign


def summary(name: str, cuts: Cuts) -> str:
    """A part in one line, from the durations alone."""
    durations_s = cuts.durations_s
    return (
        f"{name}: {len(cuts):,} utterances, {durations_s.sum() / 3600:,.2f} h, "
        f"{durations_s.min():.1f} to {durations_s.max():.1f} s"
    )


def survey(cuts: Cuts, title: str) -> Survey:
    """Look at each utterance once."""
    found = Survey(cuts.durations_s)
    for cut in track(cuts, f"reading {title}", len(cuts)):
        said = cut.supervisions[0]
        found.speakers[said.speaker or "(not said)"] += 1
        found.languages[said.language or "(not said)"] += 1
        found.characters.update(set(said.text) - {" "})
        found.words += len(said.text.split())
        found.upper += said.text != said.text.lower() and said.text == said.text.upper()
        found.lower += said.text != said.text.upper() and said.text == said.text.lower()
        found.characters_per_s.append(len(said.text) / cut.duration)
    return found


def twice(parts: Mapping[str, Cuts], waveforms: Waveforms) -> list[list[tuple[str, str]]]:
    """Groups of (part, id) with the same samples. Only utterances of equal length are compared."""
    lengths: dict[int, list[tuple[str, int]]] = defaultdict(list)
    for part, cuts in parts.items():
        for number, samples in enumerate((cuts.durations_s * SAMPLE_RATE_HZ).round().astype(np.int64).tolist()):
            lengths[samples].append((part, number))
    suspects = [one for same in lengths.values() if len(same) > 1 for one in same]
    same: dict[bytes, list[tuple[str, str]]] = defaultdict(list)
    for part, number in track(suspects, "looking for audio that is there twice", len(suspects)):
        cut = parts[part][number]
        samples = waveforms.read(source(cut))
        same[hashlib.sha256((samples * 32768).round().astype("<i2").tobytes()).digest()].append((part, cut.id))
    return [group for group in same.values() if len(group) > 1]


def advice(surveys: Mapping[str, Survey], max_duration_s: float, found: Mapping[str, int]) -> Iterator[str]:
    """Options to set, each with the reason.

    Args:
        surveys: of the parts, by name.
        max_duration_s: `data.max_duration_s`.
        found: utterances that can't be used, by part.
    """
    worst = max(found.values(), default=0)
    if worst:
        yield f"data.max_bad_utterances={worst}: as many can't be used in a part"
    training = [one for name, one in surveys.items() if name.startswith("train")] or list(surveys.values())
    longer = sum(int((one.durations_s > max_duration_s).sum()) for one in training)
    if longer:
        longest_s = max(float(one.durations_s.max()) for one in training)
        yield (
            f"data.max_duration_s={int(longest_s) + 1}, or cut long recordings where their utterances are: {longer:,} "
            f"are longer than {max_duration_s:g} s and would be left out of training"
        )
    counts = _sum(one.characters for one in training)
    if len(counts) > 300:
        yield (
            f"data.tokens=bpe data.byte_fallback=true data.vocabulary_size={max(2_000, len(counts) + 300)}: "
            f"there are {len(counts):,} characters, many of them rare"
        )
    elif sum(one.hours for one in training) > 20:
        yield "data.tokens=bpe data.vocabulary_size=500: pieces of words are quicker to learn from than characters"
    capitals = sum(one.upper for one in training)
    small = sum(one.lower for one in training)
    if capitals and small:
        yield (
            f"data.text_case=lower: {capitals:,} utterances are in capitals and {small:,} in small letters, and a "
            "model would learn both"
        )


def _sum(counters: Iterable[Counter[str]]) -> Counter[str]:
    total: Counter[str] = Counter()
    for counter in counters:
        total.update(counter)
    return total
