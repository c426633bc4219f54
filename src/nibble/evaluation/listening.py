"""Utterances to listen to, as a model heard them."""

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor

from nibble.config import FeatureStorage, HardwareConfig
from nibble.data.datamodule import SpeechDataModule
from nibble.export.loaded import Loaded


def listen(loaded: Loaded, parts: Sequence[str], ids: Sequence[str]) -> dict[str, Tensor]:
    """By id: (samples,) at 16 kHz in [-1, 1], noise included, as an evaluation of `loaded` on `parts` hears them.

    Raises:
        UserError: the corpus or the noise is not there.
    """
    features = replace(loaded.config.features, storage=FeatureStorage.on_the_fly)
    hardware = HardwareConfig(workers=0, max_batch_utterances=1)
    data = SpeechDataModule(loaded.config.data, features, hardware, loaded.config.seed)
    data.tokenizer = loaded.tokenizer
    data.keep_samples = True
    batches = data.dataloader(list(parts), ids)
    return {id_: samples for batch in batches for id_, samples in zip(batch.ids, batch.samples or (), strict=True)}
