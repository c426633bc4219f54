"""Training speech without augmentation, for calibration and analysis."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import takewhile
from pathlib import Path

from nibble.config import Config
from nibble.data.batch import Batch
from nibble.data.datamodule import SpeechDataModule
from nibble.data.feeding import Feeding
from nibble.data.options import RecordingConfig, SpecAugmentConfig
from nibble.data.tokenizer import Tokenizer
from nibble.hardware import HardwareConfig
from nibble.model.transducer import encoder_outline


def undisturbed(
    config: Config, root: Path, tokenizer: Tokenizer, hardware: HardwareConfig, max_utterances: int | None = None
) -> SpeechDataModule:
    """The speech of a run without augmentation; its noise stays, since it is part of the task.

    Args:
        config: of the run, with its folders as they are called here (`nibble.runs.speech`).
        root: of made corpora and caches.
        tokenizer: of the model.
        hardware: how large a batch is.
        max_utterances: a bound on the dev set; None for all of it.
    """
    unchanged = {"speed_perturbation": False, "spec_augment": SpecAugmentConfig(), "recording": RecordingConfig()}
    speech = replace(config.data, **unchanged)  # type: ignore[arg-type]  # each value of its own type
    encoder = encoder_outline(config.model, config.features)
    frames = encoder.output_length if config.has_ctc else None
    feeding = Feeding(tokenizer, frames, max_validation_utterances=max_utterances)
    return SpeechDataModule(speech, config.features, hardware, config.seed, root, feeding)


def first_utterances(data: SpeechDataModule, utterances: int) -> Iterator[Batch]:
    """Whole batches of the first epoch of training, until they have `utterances` utterances.

    Raises:
        UserError: the speech is not there.
    """
    for batch in takewhile(lambda batch: batch.position[0] == 0, data.train_dataloader()):
        yield batch
        utterances -= len(batch)
        if utterances <= 0:
            return
