"""Corpora, tokenizer, samplers and loaders of one run."""

import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from nibble.data import loader_processes
from nibble.data.audio import Waveforms
from nibble.data.augmentation import with_speeds
from nibble.data.batch import Batch
from nibble.data.corpora.locate import ROOT, locate
from nibble.data.cuts import Cuts
from nibble.data.dataset import Disturbance, SpeechDataset
from nibble.data.noise import Babble, FolderNoise, Noise
from nibble.data.options import Condition, DataConfig, NoiseConfig, NoiseKind, named_columns
from nibble.data.sampler import Item, TrainSampler, evaluation_batches
from nibble.data.screening import report_unknown, trainable
from nibble.data.sources.part import Reading, read_part
from nibble.data.sources.recognise import part_path, parts_folder, parts_in, select_parts, source_of
from nibble.data.sources.shar import Shar
from nibble.data.stored import with_stored_features
from nibble.data.survey import summary
from nibble.data.tokenizer import Tokenizer, train_tokenizer
from nibble.errors import UserError
from nibble.features.extractor import make_features
from nibble.features.options import FeatureConfig, FeatureStorage
from nibble.hardware import HardwareConfig
from nibble.progress import track

log = logging.getLogger(__name__)

_MOST_TEXTS = 1_000_000  # that labels are learnt from
_COUNTED = 200_000  # utterances of an epoch whose batches are counted

# How loader processes begin. It is said because joblib's launcher makes its own way the default, by which torch's fail.
_START = "fork" if sys.platform == "linux" else "spawn"


@dataclass(frozen=True)
class Feeding:
    """How one use of the speech differs from another: training, validation in several processes, evaluation.

    Args:
        tokenizer: of a trained model; None: learnt from the training transcripts.
        encoded_frames: feature frames -> frames that the encoder makes of them; given if the loss has a CTC term, which
            cannot learn from an utterance with fewer of them than labels.
        processes: (rank, number) of the process, of those that train together.
        max_validation_utterances: a bound on the dev set of `val_dataloader()`; None for all of it.
        keep_samples: whether batches have the samples that their features were made from; needs features on the fly.
        condition: how evaluation changes the speech; needs features on the fly.
    """

    tokenizer: Tokenizer | None = None
    encoded_frames: Callable[[int], int] | None = None
    processes: tuple[int, int] = (0, 1)
    max_validation_utterances: int | None = None
    keep_samples: bool = False
    condition: Condition = Condition.unchanged


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
        self._waveforms = Waveforms(root / "cache")
        self._located: tuple[str, Path] | None = None
        self._cuts: dict[Path, Cuts] = {}
        self._screened: set[str] = set()  # parts whose characters were compared with the tokenizer's
        self._tokenizer = self.feeding.tokenizer
        self._noise: dict[str, Noise] = {}
        self._kept: Cuts | None = None

    # ---- corpora and labels ----------------------------------------------------------------------------------------

    @property
    def corpus_name(self) -> str:
        """The corpus as records name it."""
        return self._locate()[0]

    @property
    def corpus_folder(self) -> Path:
        """The folder of parts."""
        return self._locate()[1]

    def parts(self, kind: str) -> list[str]:
        """The parts of "train", "dev" or "test", in order; none may exist."""
        if self.data.overfit_utterances is not None and kind == "dev":
            kind = "train"
        wanted: list[str] | None = getattr(self.data, f"{kind}_parts")
        return select_parts(self._locate()[1], kind, wanted, f"data.{kind}_parts")

    def cuts(self, parts: Sequence[str]) -> Cuts:
        """Every good utterance of `parts`, checked, decoded if small, with features if these are stored.

        With `data.overfit_utterances`, only so many; the dev parts are then the training parts.
        """
        folder = self._locate()[1]
        return Cuts.join([self._read(folder, part) for part in parts])[: self.data.overfit_utterances]

    @property
    def tokenizer(self) -> Tokenizer:
        """Labels learnt from the training transcripts."""
        if self._tokenizer is None:
            cuts, options, cache = self.cuts(self._some_parts("train")), self.data, self.root / "cache"
            if len(cuts) > _MOST_TEXTS:
                log.warning("labels are learnt from %d of %d texts, evenly spread", _MOST_TEXTS, len(cuts))
                cuts = cuts.spread(_MOST_TEXTS)
            texts = (cut.supervisions[0].text for cut in track(cuts, "reading texts", len(cuts)))
            with self._disk():
                self._tokenizer = train_tokenizer(
                    texts, options.tokens, options.vocabulary_size, cache, options.byte_fallback
                )
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
                self._noise_of(kind)

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
        return self.dataloader(self._some_parts("dev"), most=self.feeding.max_validation_utterances)

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

    @contextmanager
    def _disk(self) -> Iterator[None]:
        """Says what to do when a file cannot be read or written."""
        try:
            yield
        except OSError as error:
            raise UserError(
                f"can't read the corpus or write its cache: {error}. Free space or permit writing in "
                f"{self.root.resolve()}"
            ) from error

    def _locate(self) -> tuple[str, Path]:
        if self._located is None:
            with self._disk():
                self._located = locate(self.data, self.root)
        return self._located

    def _some_parts(self, kind: str) -> list[str]:
        """`parts`, of which there must be one."""
        parts = self.parts(kind)
        if not parts:
            folder = self._locate()[1]
            present = ", ".join(parts_in(folder))
            raise UserError(
                f"no part of {folder} begins with {kind}; name some with data.{kind}_parts=[...]; there is {present}"
            )
        return parts

    def _read(self, folder: Path, part: str) -> Cuts:
        path = part_path(folder, part)
        if path not in self._cuts:
            with self._disk():
                self._cuts[path] = self._read_anew(path)
        return self._cuts[path]

    def _read_anew(self, path: Path) -> Cuts:
        source = source_of(path, named_columns(self.data.columns))
        stored = self.feature_config.storage == FeatureStorage.stored
        if stored and isinstance(source, Shar):
            raise UserError(
                f"features.storage=stored makes a file of each utterance, which the shards of {path} "
                "are there to avoid; give features.storage=on_the_fly"
            )
        reading = Reading(self.data.max_bad_utterances, self.data.channel, self.data.text_case)
        cuts = read_part(source, self.root / "cache", reading)
        if stored:
            return with_stored_features(cuts, self.feature_config, self.root / "features")
        self._waveforms.add(cuts, path.name)
        return cuts

    def _references(self, parts: Sequence[str]) -> Cuts:
        """`cuts` for evaluation; what the model can't write in them is said once."""
        for part in parts:
            if part not in self._screened:
                report_unknown(self.cuts([part]), self.tokenizer)
                self._screened.add(part)
        return self.cuts(parts)

    def _trainable(self) -> Cuts:
        """The training utterances, speeds included, that can be learnt from."""
        if self._kept is None:
            cuts = self.cuts(self._some_parts("train"))
            if self.data.speed_perturbation:
                cuts = with_speeds(cuts)
            frames, features = self.feeding.encoded_frames, make_features(self.feature_config)
            encoded = None if frames is None else lambda samples: frames(features.frame_count(samples))
            self._kept = trainable(cuts, self.tokenizer, self.data, encoded)
        return self._kept

    def _train_sampler(self, start: tuple[int, int]) -> TrainSampler:
        return TrainSampler(self._trainable(), self.hardware, self.seed, start, *self.feeding.processes)

    def _noise_of(self, kind: str) -> Noise | None:
        """The noise behind "train" or "dev"."""
        config: NoiseConfig = self.data.noise
        if config.kind == NoiseKind.none or config.dir is None:
            return None
        if kind not in self._noise:
            if config.kind == NoiseKind.folder:
                with self._disk():
                    self._noise["train"] = self._noise["dev"] = FolderNoise(Path(config.dir))
            else:
                folder = parts_folder(Path(config.dir), "data.noise.dir")
                option = f"data.noise.{kind}_parts"
                parts = select_parts(folder, kind, getattr(config, f"{kind}_parts"), option)
                if not parts:
                    raise UserError(f"no part of {folder} begins with {kind}; name some with {option}=[...]")
                cuts = Cuts.join([self._read(folder, part) for part in parts])
                self._noise[kind] = Babble(cuts, self._waveforms, config.talkers)
        return self._noise[kind]

    def _dataset(self, training: bool) -> SpeechDataset:
        data = self.data
        noise = self._noise_of("train" if training else "dev")
        condition = Condition.unchanged if training else self.feeding.condition
        disturbance = Disturbance(
            noise, data.noise, data.recording, data.spec_augment, training, data.max_duration_s, condition
        )
        return SpeechDataset(
            self._waveforms,
            self.tokenizer,
            self.feature_config,
            disturbance,
            self.seed,
            rank=self.feeding.processes[0],
            keep_samples=self.feeding.keep_samples,
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
