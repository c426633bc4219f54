"""The utterances with most errors: what they sound and look like, and what each run recognises in them."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

from nibble.config import FeatureConfig, FeatureStorage, HardwareConfig
from nibble.data.batch import Batch
from nibble.data.corpora import find_made
from nibble.data.datamodule import SpeechDataModule
from nibble.errors import UserError
from nibble.evaluation.alignment import align
from nibble.evaluation.evaluate import evaluate
from nibble.evaluation.records import Record
from nibble.export.loaded import Loaded
from nibble.features import SAMPLE_RATE
from nibble.report.comparison import Speech
from nibble.report.page.media import sound, spectrogram

_ROOT = Path("data")  # where corpora lie, as for train.py


def worst(records: Iterable[Record], count: int) -> list[str]:
    """The ids of at most `count` utterances with errors: the worst of each record in turn, then the next, and so on."""
    ranked = [
        [id_ for id_, errors, _ in sorted(record.utterance_errors, key=lambda one: (-one[1], one[0])) if errors]
        for record in records
    ]
    in_turn = (id_ for ids in zip_longest(*ranked) for id_ in ids if id_ is not None)
    return list(dict.fromkeys(in_turn))[:count]


def read(loaded: Loaded, speech: Speech, ids: Sequence[str]) -> list[Batch]:
    """Utterances as the evaluation of a run heard them, noise included, each a batch of its own with its samples.

    Raises:
        UserError: the corpus or the noise is not on this machine.
    """
    folder = find_made(loaded.config.data, _ROOT)
    if folder is None:
        raise UserError(f"the corpus {speech.corpus} is not on this machine, below {_ROOT.resolve()}")
    data = replace(loaded.config.data, corpus_dir=str(folder))  # so that nothing is downloaded for it
    features = FeatureConfig(loaded.config.features.mel_bins, FeatureStorage.on_the_fly)
    module = SpeechDataModule(data, features, HardwareConfig(workers=0, max_batch_utterances=1), loaded.config.seed)
    module.tokenizer = loaded.tokenizer
    module.keep_samples = True
    batches = list(module.dataloader(speech.part.split("+"), ids))
    if missing := set(ids) - {batch.ids[0] for batch in batches}:
        raise UserError(f"{folder} has no utterance {min(missing)} in {speech.part}, which was evaluated")
    return batches


def shown(batches: Iterable[Batch]) -> dict[str, dict[str, Any]]:
    """By id: reference, duration in seconds, sound and spectrogram."""
    found = {}
    for batch in batches:
        assert batch.samples is not None
        found[batch.ids[0]] = {
            "reference": batch.texts[0],
            "duration_s": round(len(batch.samples[0]) / SAMPLE_RATE, 2),
            "sound": sound(batch.samples[0]),
            "spectrogram": spectrogram(batch.features[0]),
        }
    return found


def recognised(loaded: Loaded, batches: Iterable[Batch]) -> dict[str, list[list[str]]]:
    """By id: [word of the reference, word recognised, what became of it], by greedy search."""
    found = evaluate(loaded.model, loaded.tokenizer, batches).transcripts
    return {one.id: [[*pair, pair.kind.value] for pair in align(one.reference, one.hypothesis)] for one in found}
