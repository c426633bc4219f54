"""Word or character error rate: substitutions, deletions, insertions, 95 % interval, and paired differences.

Rates are fractions of the reference words: 0.05 is 5 %. Of scripts without spaces between words, characters take the
place of words throughout. Alignment is kaldialign's. The intervals are percentiles of
a bootstrap over utterances (Bisani and Ney, 2004): one implementation for a system, for several seeds and for
differences. Words within an utterance stay together, because their errors are not independent.
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import kaldialign
import numpy as np

from nibble.evaluation.units import Units

REPLICATIONS = 10_000
_SEED = 0
_MAX_ELEMENTS = 1_000_000  # drawn at once: bounds memory on large corpora


class Edits(NamedTuple):
    """The errors in one utterance."""

    id: str
    substitutions: int
    deletions: int
    insertions: int
    units: int  # words or characters of the reference

    @property
    def errors(self) -> int:
        """All of them."""
        return self.substitutions + self.deletions + self.insertions


@dataclass(frozen=True)
class Score:
    """The errors of one system on one set of utterances, in words unless `units` says characters."""

    wer: float  # (substitutions + deletions + insertions) / reference_words
    substitutions: int
    deletions: int
    insertions: int
    reference_words: int
    wer_ci95: tuple[float, float]  # low, high
    utterance_errors: list[tuple[str, int, int]]  # utterance id, errors, reference words
    units: Units = Units.words
    edits: list[Edits] = field(default_factory=list)  # of each utterance


def score(
    ids: Sequence[str], references: Sequence[str], hypotheses: Sequence[str], units: Units = Units.words
) -> Score:
    """Score one hypothesis per reference; words are separated by spaces.

    Without any reference words the rate is 0 if nothing was recognised and infinite otherwise.

    Raises:
        ValueError: the three sequences differ in length, or an id appears twice.
    """
    _check(ids, references, hypotheses)
    found = (
        kaldialign.edit_distance(units.units_in(reference), units.units_in(hypothesis))
        for reference, hypothesis in zip(references, hypotheses, strict=True)
    )
    names = ("sub", "del", "ins", "ref_len")
    return _summed(
        [Edits(id_, *(int(one[name]) for name in names)) for id_, one in zip(ids, found, strict=True)], units
    )


def inserted(
    ids: Sequence[str], references: Sequence[str], hypotheses: Sequence[str], units: Units = Units.words
) -> Score:
    """Score transcripts of silence: all words are insertions; the rate is per reference word.

    Raises:
        ValueError: as of `score`.
    """
    _check(ids, references, hypotheses)
    counts = (
        (len(units.units_in(hypothesis)), len(units.units_in(reference)))
        for reference, hypothesis in zip(references, hypotheses, strict=True)
    )
    return _summed([Edits(id_, 0, 0, wrong, words) for id_, (wrong, words) in zip(ids, counts, strict=True)], units)


def _check(ids: Sequence[str], references: Sequence[str], hypotheses: Sequence[str]) -> None:
    if not len(ids) == len(references) == len(hypotheses):
        raise ValueError(f"{len(ids)} ids, {len(references)} references, {len(hypotheses)} hypotheses")
    if len(set(ids)) != len(ids):
        raise ValueError("an utterance id appears twice")


def _summed(edits: list[Edits], units: Units) -> Score:
    utterances = [(one.id, one.errors, one.units) for one in edits]
    return Score(
        wer=_rate(sum(errors for _, errors, _ in utterances), sum(words for _, _, words in utterances)),
        substitutions=sum(one.substitutions for one in edits),
        deletions=sum(one.deletions for one in edits),
        insertions=sum(one.insertions for one in edits),
        reference_words=sum(words for _, _, words in utterances),
        wer_ci95=interval([utterances])[1:],
        utterance_errors=utterances,
        units=units,
        edits=edits,
    )


def interval(seeds: Sequence[Sequence[tuple[str, int, int]]]) -> tuple[float, float, float]:
    """WER and its 95 % interval (wer, low, high) from the utterance errors of one system's runs, one per seed.

    Errors of an utterance are pooled over the seeds before utterances are drawn: the interval is about the speech,
    not about the seeds.
    """
    counts = _pool(seeds)
    table = np.array([counts[id_] for id_ in sorted(counts)], dtype=np.int64).reshape(-1, 2)
    errors, words = _resample(table).T
    low, high = _percentiles(errors, words)
    total = table.sum(axis=0)
    return _rate(int(total[0]), int(total[1])), low, high


def paired_interval(
    a: Sequence[Sequence[tuple[str, int, int]]], b: Sequence[Sequence[tuple[str, int, int]]]
) -> tuple[float, float, float]:
    """WER of `a` minus WER of `b` with its 95 % interval: (difference, low, high). Below 0: `a` makes fewer errors.

    Each side is the utterance errors of its runs, one per seed. Both systems see the same drawn utterances, so what
    makes an utterance hard for both cancels out.

    Raises:
        ValueError: the two sides were not measured on the same utterances and references.
    """
    pool_a, pool_b = _pool(a), _pool(b)
    if pool_a.keys() != pool_b.keys():
        raise ValueError(f"{len(pool_a.keys() ^ pool_b.keys())} utterances were measured for one system only")
    for id_, (_, words) in pool_a.items():
        if words * len(b) != pool_b[id_][1] * len(a):
            raise ValueError(f"the reference of utterance {id_} differs between the systems")
    table = np.array([(*pool_a[id_], *pool_b[id_]) for id_ in sorted(pool_a)], dtype=np.int64).reshape(-1, 4)
    total = table.sum(axis=0).tolist()
    difference = _rate(total[0], total[1]) - _rate(total[2], total[3]) if total[1] else 0.0
    drawn = _resample(table)
    # Same references for both: a common denominator makes the difference of rates a rate.
    low, high = _percentiles(drawn[:, 0] * len(b) - drawn[:, 2] * len(a), drawn[:, 1] * len(b))
    return difference, low, high


def _pool(seeds: Sequence[Sequence[tuple[str, int, int]]]) -> dict[str, tuple[int, int]]:
    """Utterance id -> (errors, words), summed over seeds."""
    counts: dict[str, tuple[int, int]] = defaultdict(lambda: (0, 0))
    for utterances in seeds:
        for id_, errors, words in utterances:
            counts[id_] = (counts[id_][0] + errors, counts[id_][1] + words)
    return counts


def _resample(table: np.ndarray) -> np.ndarray:
    """Column sums (replications, columns) of rows drawn with replacement from `table` (utterances, columns)."""
    utterances, columns = table.shape
    if utterances == 0:
        return np.zeros((1, columns), dtype=np.int64)
    generator = np.random.default_rng(_SEED)
    sums, chunk = [], max(1, _MAX_ELEMENTS // (utterances * columns))
    for start in range(0, REPLICATIONS, chunk):
        drawn = generator.integers(0, utterances, (min(chunk, REPLICATIONS - start), utterances))
        sums.append(table[drawn].sum(axis=1))
    return np.concatenate(sums)


def _percentiles(errors: np.ndarray, words: np.ndarray) -> tuple[float, float]:
    """2.5th and 97.5th percentile of errors / words (replications,); draws without a word are left out."""
    spoken = words > 0
    if not spoken.any():
        return 0.0, 0.0
    low, high = np.percentile(errors[spoken] / words[spoken], [2.5, 97.5])
    return float(low), float(high)


def _rate(errors: int, words: int) -> float:
    if words:
        return errors / words
    return math.inf if errors else 0.0
