"""Reads the speech that damage is measured on, and keeps it in memory: it is the same for each layer and width."""

from collections.abc import Iterable
from pathlib import Path

from nibble.config import Config
from nibble.data.batch import Batch
from nibble.data.tokenizer import Tokenizer
from nibble.hardware import HardwareConfig
from nibble.progress import track
from nibble.runs.unaugmented import first_utterances, undisturbed
from nibble.sensitivity.options import SensitivityPart


def read_batches(
    config: Config,
    root: Path,
    tokenizer: Tokenizer,
    hardware: HardwareConfig,
    part: SensitivityPart,
    max_utterances: int,
) -> list[Batch]:
    """Utterances drawn from the training speech, or evenly spread over the dev parts."""
    data = undisturbed(config, root, tokenizer, hardware, max_utterances)
    batches: Iterable[Batch] = data.val_dataloader()
    if part is SensitivityPart.train:
        batches = first_utterances(data, max_utterances)
    return list(track(batches, f"reading {part.value} speech", max_utterances, size=len))
