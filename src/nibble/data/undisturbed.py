"""Training speech as it was recorded, for what looks at a model and does not train it."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import takewhile

from nibble.config import Config, HardwareConfig, SpecAugmentConfig
from nibble.data.batch import Batch
from nibble.data.datamodule import SpeechDataModule
from nibble.data.tokenizer import Tokenizer


def undisturbed(config: Config, tokenizer: Tokenizer, hardware: HardwareConfig) -> SpeechDataModule:
    """The speech of a run, neither masked nor changed in speed; noise is what the model is trained in, so it stays."""
    speech = replace(config.data, speed_perturbation=False, spec_augment=SpecAugmentConfig())
    data = SpeechDataModule(speech, config.features, hardware, config.seed)
    data.tokenizer = tokenizer
    return data


def first_utterances(data: SpeechDataModule, utterances: int) -> Iterator[Batch]:
    """Whole batches of the first epoch of training, until there are so many utterances.

    Raises:
        UserError: the speech is not there.
    """
    for batch in takewhile(lambda batch: batch.position[0] == 0, data.train_dataloader()):
        yield batch
        utterances -= len(batch)
        if utterances <= 0:
            return
