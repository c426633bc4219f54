"""Puts the folds of a corpus together: each speaker was tested in one of them, by a run that never heard it."""

import re
from collections.abc import Sequence
from dataclasses import replace

from nibble.evaluation.wer import interval
from nibble.runs.records import Record

_FOLD = re.compile(r"-fold(\d+)$")  # of the corpus and of the part: `nibble.data.corpora.speaker_folds`


def pooled(records: Sequence[Record]) -> list[Record]:
    """The records, with one in place of those of all folds of one system and seed, at the place of the last one.

    A seed of which a fold is missing is left out, since its rate is of other utterances.
    """
    folds: dict[tuple[object, ...], dict[str, Record]] = {}
    known: dict[tuple[str, str, str], set[str]] = {}  # experiment, corpus, part -> folds
    for record in records:
        if found := _FOLD.search(record.part):
            folds.setdefault(_system(record), {})[found[1]] = record
            known.setdefault(_task(record), set()).add(found[1])
    pooled: list[Record] = []
    for record in records:
        found = _FOLD.search(record.part)
        if found is None:
            pooled.append(record)
            continue
        own = folds[_system(record)]
        if own[found[1]] is record and found[1] == max(own) and own.keys() == known[_task(record)]:
            pooled.append(_together([own[fold] for fold in sorted(own)]))
    return pooled


def _task(record: Record) -> tuple[str, str, str]:
    return record.experiment, _FOLD.sub("", record.corpus), _FOLD.sub("", record.part)


def _system(record: Record) -> tuple[object, ...]:
    """Equal for the folds of one system and seed."""
    return _task(record), record.model, record.quant, record.method, record.backend, record.seed, record.condition


def _together(folds: Sequence[Record]) -> Record:
    """One record of all folds; its groups are left out, which would have to be counted anew."""
    last, errors = folds[-1], [one for fold in folds for one in fold.utterance_errors]
    wer, low, high = interval([errors])
    _, corpus, part = _task(last)
    hashes = [one for fold in folds for one in fold.text_hashes]
    counts = {
        name: sum(getattr(fold, name) for fold in folds)
        for name in ("substitutions", "deletions", "insertions", "reference_words", "windowed")
    }
    return replace(
        last,
        corpus=corpus,
        part=part,
        wer=wer,
        wer_ci95=(low, high),
        utterance_errors=errors,
        rtf=sum(fold.rtf for fold in folds) / len(folds),
        cer=None,
        groups={},
        text_hashes=hashes if len(hashes) == len(errors) else [],
        revision=min(fold.revision for fold in folds),
        **counts,
    )
