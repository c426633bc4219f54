"""The speech that damage is found on: the same utterances for each layer and width, so they are kept in memory."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import takewhile

from nibble.config import Config, HardwareConfig, SensitivityPart, SpecAugmentConfig
from nibble.data.batch import Batch
from nibble.data.datamodule import SpeechDataModule
from nibble.data.progress import track
from nibble.data.tokenizer import Tokenizer


def read_batches(
    config: Config, tokenizer: Tokenizer, hardware: HardwareConfig, part: SensitivityPart, max_utterances: int
) -> list[Batch]:
    """Utterances drawn from the training speech, or evenly spread over the dev parts.

    They are neither masked nor changed in speed; noise is what the model was trained in, so it stays.
    """
    speech = replace(config.data, speed_perturbation=False, spec_augment=SpecAugmentConfig())
    data = SpeechDataModule(speech, config.features, hardware, config.seed)
    data.tokenizer = tokenizer
    data.max_validation_utterances = max_utterances
    batches: Iterable[Batch] = data.val_dataloader()
    if part is SensitivityPart.train:
        batches = _first(max_utterances, takewhile(lambda batch: batch.position[0] == 0, data.train_dataloader()))
    return list(track(batches, f"reading {part.value} speech", max_utterances, size=len))


def _first(utterances: int, batches: Iterable[Batch]) -> Iterator[Batch]:
    """Whole batches until there are so many utterances."""
    for batch in batches:
        yield batch
        utterances -= len(batch)
        if utterances <= 0:
            return
