"""Loaders of batches for Lightning: training, validation and evaluation."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from nibble.data import loader_processes
from nibble.data.augmentation import with_speeds
from nibble.data.batch import Batch
from nibble.data.corpora.locate import ROOT
from nibble.data.cuts import Cuts
from nibble.data.dataset import Disturbance, SpeechDataset
from nibble.data.feeding import Feeding
from nibble.data.options import Condition, DataConfig, NoiseKind
from nibble.data.part_reader import PartReader
from nibble.data.sampler import Item, TrainSampler, evaluation_batches
from nibble.data.screening import report_unknown, trainable
from nibble.data.survey import summary
from nibble.data.tokenizer import Tokenizer
from nibble.errors import UserError
from nibble.features.extractor import make_features
from nibble.features.options import FeatureConfig, FeatureStorage
from nibble.hardware import HardwareConfig

_COUNTED = 200_000  # utterances of an epoch whose batches are counted one by one

# How loader processes begin. Named, because joblib's launcher changes the default to one with which torch's fail.
_START = "fork" if sys.platform == "linux" else "spawn"


class SpeechDataModule(pl.LightningDataModule):
    """Speech for training, validation and evaluation.

    Corpora, features and tokenizer are made when they are first needed, and kept below `root` for later runs.

    Args:
        data: which speech, labels and disturbances.
        features: how log-mel is computed and whether it is stored.
        hardware: how large a batch is and how many processes load it.
        seed: of order and disturbances.
        root: where corpora that nibble makes or downloads lie, and its caches.
        feeding: what it is used for.

    Attributes:
        position: the (epoch, batch index) at which `train_dataloader()` starts; a part of a checkpoint.
    """

    def __init__(
        self,
        data: DataConfig,
        features: FeatureConfig,
        hardware: HardwareConfig,
        seed: int,
        root: Path = ROOT,
        feeding: Feeding | None = None,
    ) -> None:
        super().__init__()
        changed = data.speed_perturbation or data.noise.kind != NoiseKind.none or data.recording.probability > 0
        if features.storage == FeatureStorage.stored and changed:
            raise UserError(
                "features.storage=stored excludes what changes the audio each time: features=fbank, or all of "
                "data.speed_perturbation=false data.noise.kind=none data.recording.probability=0"
            )
        self.data = data
        self.feature_config = features
        self.hardware = hardware
        self.seed = seed
        self.root = root
        self.feeding = feeding or Feeding()
        self.position: tuple[int, int] = (0, 0)
        self._reader = PartReader(data, features, root)
        self._screened: set[str] = set()  # parts whose characters were compared with the tokenizer's
        self._tokenizer = self.feeding.tokenizer
        self._trained: Cuts | None = None

    # ---- corpora and labels ----------------------------------------------------------------------------------------

    @property
    def corpus_name(self) -> str:
        """The corpus as records name it."""
        return self._reader.locate()[0]

    @property
    def corpus_folder(self) -> Path:
        """The folder of parts."""
        return self._reader.locate()[1]

    def parts(self, kind: str) -> list[str]:
        """The parts of "train", "dev" or "test", in order; the list may be empty."""
        return self._reader.parts(kind)

    def cuts(self, parts: Sequence[str]) -> Cuts:
        """Every good utterance of `parts`; see `PartReader.cuts`."""
        return self._reader.cuts(parts)

    @property
    def tokenizer(self) -> Tokenizer:
        """The labels: those given, or learnt from the training transcripts."""
        if self._tokenizer is None:
            self._tokenizer = self._reader.learn_labels()
        return self._tokenizer

    def prepare_data(self) -> None:
        """Make or download, check and decode what training needs; afterwards `setup` is quick."""
        self.setup("fit")

    def setup(self, stage: str | None = None) -> None:
        """Read what `stage` needs: for "fit" the training and dev parts, otherwise nothing before it is asked for."""
        if stage in ("fit", None):
            self._trainable()
            self._references(self.parts("dev"))
            for kind in ("train", "dev"):
                self._reader.noise(kind)

    def summaries(self) -> list[str]:
        """A line about each part that training reads: how many utterances, hours, and seconds they last."""
        parts = dict.fromkeys([*self.parts("train"), *self.parts("dev")])
        return [summary(part, self.cuts([part])) for part in parts]

    # ---- loaders ---------------------------------------------------------------------------------------------------

    def train_dataloader(self) -> DataLoader[Batch]:
        """An endless stream of batches from `position` on: the same ones whatever ran before or beside it."""
        return self._loader(self._train_sampler(self.position), training=True)

    def largest_batch(self) -> Batch:
        """The training batch that takes most memory; it is no part of an epoch."""
        return self._dataset(training=True).largest(self._train_sampler((0, 0)).largest())

    def val_dataloader(self) -> DataLoader[Batch]:
        """The dev parts, or `max_validation_utterances` of them evenly spread."""
        return self.dataloader(self._reader.needed_parts("dev"), most=self.feeding.max_validation_utterances)

    def dataloader(
        self, part_names: Sequence[str], ids: Sequence[str] | None = None, most: int | None = None
    ) -> DataLoader[Batch]:
        """Utterances of the parts once each, in a fixed order, disturbed like dev.

        Args:
            part_names: of the parts.
            ids: of the utterances; None for all.
            most: how many at most, evenly spread.
        """
        cuts = self._references(part_names)
        if ids is not None:
            cuts = Cuts.of(cut for cut in cuts if cut.id in ids)
        if most is not None:
            cuts = cuts.spread(most)
        return self._loader(evaluation_batches(cuts, self.hardware, *self.feeding.processes), training=False)

    def batches_per_epoch(self) -> int:
        """Batches of epoch 0, for this process as for every other; of many utterances, about as many."""
        sampler = self._train_sampler((0, 0))
        if len(sampler.cuts) <= _COUNTED:
            return sampler.count(0)
        some = TrainSampler(sampler.cuts.spread(_COUNTED), self.hardware, self.seed, (0, 0), *self.feeding.processes)
        return round(some.count(0) * len(sampler.cuts) / _COUNTED)

    def state_dict(self) -> dict[str, Any]:
        """The position, for a checkpoint."""
        return {"position": list(self.position)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on at the position of a checkpoint."""
        epoch, index = state_dict["position"]
        self.position = (int(epoch), int(index))

    # ---- inside ----------------------------------------------------------------------------------------------------

    def _references(self, parts: Sequence[str]) -> Cuts:
        """`cuts` for evaluation; what the model can't write in them is said once."""
        for part in parts:
            if part not in self._screened:
                report_unknown(self.cuts([part]), self.tokenizer)
                self._screened.add(part)
        return self.cuts(parts)

    def _trainable(self) -> Cuts:
        """The training utterances, speeds included, that can be learnt from."""
        if self._trained is None:
            cuts = self.cuts(self._reader.needed_parts("train"))
            if self.data.speed_perturbation:
                cuts = with_speeds(cuts)
            frames, features = self.feeding.encoded_frames, make_features(self.feature_config)
            encoded = None if frames is None else lambda samples: frames(features.frame_count(samples))
            self._trained = trainable(cuts, self.tokenizer, self.data, encoded)
        return self._trained

    def _train_sampler(self, start: tuple[int, int]) -> TrainSampler:
        return TrainSampler(self._trainable(), self.hardware, self.seed, start, *self.feeding.processes)

    def _dataset(self, training: bool) -> SpeechDataset:
        data = self.data
        noise = self._reader.noise("train" if training else "dev")
        condition = Condition.unchanged if training else self.feeding.condition
        disturbance = Disturbance(
            noise, data.noise, data.recording, data.spec_augment, training, data.max_duration_s, condition
        )
        return SpeechDataset(
            self._reader.waveforms, self.tokenizer, self.feature_config, disturbance, self.seed, self.feeding
        )

    def _loader(self, sampler: TrainSampler | list[Item], training: bool) -> DataLoader[Batch]:
        return DataLoader(
            self._dataset(training),
            batch_size=None,
            sampler=sampler,
            num_workers=self.hardware.workers,
            multiprocessing_context=_START if self.hardware.workers else None,
            pin_memory=self.hardware.accelerator != "cpu" and torch.cuda.is_available(),
            # Its own, so that making an iterator leaves torch's global random state alone.
            generator=torch.Generator().manual_seed(self.seed),
            worker_init_fn=loader_processes.begin,
            collate_fn=loader_processes.share,  # type: ignore[arg-type]  # a batch, not a list
        )
