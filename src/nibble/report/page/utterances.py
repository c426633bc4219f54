"""The utterances with most errors: sound, spectrogram, and the transcript of each run."""

from collections.abc import Iterable
from itertools import zip_longest
from typing import Any

from nibble.conventions import SAMPLE_RATE_HZ
from nibble.data.batch import Batch
from nibble.evaluation.alignment import align
from nibble.evaluation.evaluate import evaluate
from nibble.report.page.media import sound, spectrogram
from nibble.runs.loaded import Loaded
from nibble.runs.records import Record


def worst(records: Iterable[Record], count: int) -> list[str]:
    """The ids of at most `count` utterances with errors: the worst of each record in turn, then the next, and so on."""
    ranked = [
        [id_ for id_, errors, _ in sorted(record.utterance_errors, key=lambda one: (-one[1], one[0])) if errors]
        for record in records
    ]
    in_turn = (id_ for ids in zip_longest(*ranked) for id_ in ids if id_ is not None)
    return list(dict.fromkeys(in_turn))[:count]


def shown(batches: Iterable[Batch]) -> dict[str, dict[str, Any]]:
    """By id: reference, duration in seconds, sound and spectrogram."""
    found = {}
    for batch in batches:
        assert batch.samples is not None
        found[batch.ids[0]] = {
            "reference": batch.texts[0],
            "duration_s": round(len(batch.samples[0]) / SAMPLE_RATE_HZ, 2),
            "sound": sound(batch.samples[0]),
            "spectrogram": spectrogram(batch.features[0]),
        }
    return found


def recognised(loaded: Loaded, batches: Iterable[Batch]) -> dict[str, list[list[str]]]:
    """By id: [word of the reference, word recognised, kind of error], by greedy search."""
    found = evaluate(loaded, batches).transcripts
    return {one.id: [[*pair, pair.kind.value] for pair in align(one.reference, one.hypothesis)] for one in found}
