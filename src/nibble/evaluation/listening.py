"""Reads single utterances exactly as an evaluation heard them."""

from collections.abc import Sequence
from dataclasses import replace

from nibble.data.batch import Batch
from nibble.data.corpora.locate import find_made
from nibble.data.datamodule import SpeechDataModule
from nibble.data.feeding import Feeding
from nibble.errors import UserError
from nibble.features.options import FeatureStorage
from nibble.hardware import HardwareConfig
from nibble.runs.loaded import Loaded
from nibble.runs.run_folder import RunFolder
from nibble.runs.speech import speech


def listen(loaded: Loaded, part: str, ids: Sequence[str]) -> list[Batch]:
    """Read utterances as the evaluation of `loaded` on `part` heard them, noise included.

    Args:
        loaded: the model, with the configuration of its run.
        part: as in records; several are joined by "+".
        ids: of the utterances.

    Returns:
        a batch for each utterance, with its samples.

    Raises:
        UserError: the corpus or the noise is not on this machine.
    """
    config, root = speech(loaded.config, RunFolder.of(loaded.path).path)
    folder = find_made(config.data, root)
    if folder is None:
        raise UserError(f"the corpus {loaded.corpus} is not on this machine, below {root.resolve()}")
    data = replace(config.data, corpus_dir=str(folder))  # so that nothing is downloaded for it
    features = replace(loaded.config.features, storage=FeatureStorage.on_the_fly)
    hardware = HardwareConfig(workers=0, max_batch_utterances=1)
    feeding = Feeding(loaded.tokenizer, keep_samples=True)
    module = SpeechDataModule(data, features, hardware, config.seed, root, feeding)
    batches = list(module.dataloader(part.split("+"), ids))
    if missing := set(ids) - {batch.ids[0] for batch in batches}:
        raise UserError(f"{folder} has no utterance {min(missing)} in {part}, which was evaluated")
    return batches
