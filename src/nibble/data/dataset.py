"""Makes batches: loads audio, adds noise, computes features, masks and pads them."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from lhotse import CutSet, MonoCut
from lhotse.augmentation import AudioTransform
from numpy.typing import NDArray
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset

from nibble.conventions import SAMPLE_RATE_HZ
from nibble.data.audio import Waveforms, source
from nibble.data.augmentation import of_samples, spec_augment
from nibble.data.batch import Batch
from nibble.data.conditions import under
from nibble.data.feeding import Feeding
from nibble.data.noise import Noise, fixed_random, mix
from nibble.data.options import Condition, NoiseConfig, RecordingConfig, SpecAugmentConfig
from nibble.data.recording import Setting, draw_setting, nothing_said, recorded
from nibble.data.sampler import Item
from nibble.data.samples import Samples
from nibble.data.tokenizer import Tokenizer
from nibble.errors import UserError
from nibble.features.extractor import make_features
from nibble.features.options import FeatureConfig, FeatureKind


@dataclass
class Disturbance:
    """The changes to speech before the model hears it: noise, recording conditions and SpecAugment."""

    noise: Noise | None
    noise_config: NoiseConfig
    recording: RecordingConfig
    spec_augment: SpecAugmentConfig
    training: bool  # otherwise only noise, at one level, the same for an utterance each time
    max_duration_s: float  # of utterances that are joined
    condition: Condition = Condition.unchanged  # of evaluation


class SpeechDataset(Dataset[Batch]):
    """Makes the batch that a sampler asks for.

    Every random choice of a training batch follows from (seed, epoch, index), and the rank in a run of several
    processes, so it is the same batch in whichever loader process, and after a resumption.
    """

    def __init__(
        self,
        waveforms: Waveforms,
        tokenizer: Tokenizer,
        features: FeatureConfig,
        disturbance: Disturbance,
        seed: int,
        feeding: Feeding,
    ) -> None:
        self.waveforms = waveforms
        self.tokenizer = tokenizer
        self.features = features
        self.disturbance = disturbance
        self.seed = seed
        self.rank = feeding.processes[0]
        self.keep_samples = feeding.keep_samples

    def __getitem__(self, item: Item) -> Batch:
        epoch, index, _ = item
        others = [self.rank] if self.rank else []  # the first process draws the same as a run of one process
        random = np.random.default_rng([self.seed, epoch, index, *others])
        recording = self.disturbance.recording
        records = self.disturbance.training and recording.probability > 0
        return self._batch(item, draw_setting(recording, random) if records else None, random)

    def largest(self, cuts: CutSet) -> Batch:
        """The training batch of `cuts` with the longest silences that `data.recording` may add."""
        recording = self.disturbance.recording
        setting = Setting(recording.max_joined, recording.max_silence_s) if recording.probability > 0 else None
        return self._batch((0, 0, cuts), setting, np.random.default_rng(self.seed))

    def _batch(self, item: Item, setting: Setting | None, random: np.random.Generator) -> Batch:
        epoch, index, cuts = item
        utterances = self._joined(list(cuts), setting)
        with _one_thread():
            made = [self._features(parts, setting, random) for parts in utterances]
            if setting is not None:  # so that the model learns to write nothing for noise and silence
                nothing = torch.from_numpy(nothing_said(random))
                utterances.append([])
                made.append((make_features(self.features)(nothing), nothing))
            features, samples = zip(*made, strict=True)
        texts = [" ".join(cut.supervisions[0].text for cut in parts) for parts in utterances]
        labels = [torch.tensor(self.tokenizer.encode(text), dtype=torch.int64) for text in texts]
        return Batch(
            features=pad_sequence(list(features), batch_first=True),
            feature_lengths=torch.tensor([len(matrix) for matrix in features]),
            labels=pad_sequence(labels, batch_first=True),
            label_lengths=torch.tensor([len(row) for row in labels]),
            ids=["+".join(cut.id for cut in parts) or "nothing said" for parts in utterances],
            texts=texts,
            duration_s=sum(cut.duration for cut in cuts),
            position=(epoch, index),
            samples=[one for one in samples if one is not None] if self.keep_samples else None,
        )

    def _joined(self, cuts: list[MonoCut], setting: Setting | None) -> list[list[MonoCut]]:
        """Groups of cuts, each of which is joined to one utterance."""
        if setting is None:
            return [[cut] for cut in cuts]
        groups: list[list[MonoCut]] = []
        for cut in cuts:
            fits = groups and len(groups[-1]) < setting.joined
            if fits and sum(one.duration for one in groups[-1]) + cut.duration <= self.disturbance.max_duration_s:
                groups[-1].append(cut)
            else:
                groups.append([cut])
        return groups

    def _features(
        self, cuts: Sequence[MonoCut], setting: Setting | None, random: np.random.Generator
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """(T, F) of one utterance and, unless its features are stored, the samples (samples,) they were made from."""
        samples, cut = None, cuts[0]
        if cut.has_features:
            features = torch.from_numpy(_stored(cut))
        else:
            parts = [self._speech(one) for one in cuts]
            speech = parts[0] if setting is None else recorded(parts, setting, self.disturbance.recording, random)
            heard = under(self.disturbance.condition, self._with_noise(cut, speech, random), cut.id)
            samples = torch.from_numpy(heard)
            features = make_features(self.features)(samples)
        masks = self.disturbance.spec_augment
        if self.features.kind is FeatureKind.samples:
            masks = of_samples(masks)
        if self.disturbance.training and random.random() < masks.probability:
            features = spec_augment(features, masks, seed=int(random.integers(2**62)))
        return features, samples

    def _speech(self, cut: MonoCut) -> Samples:
        """Samples (samples,), at the speed of the cut."""
        samples = self.waveforms.read(source(cut))
        for transform in cut.recording.transforms or []:
            change = transform if isinstance(transform, AudioTransform) else AudioTransform.from_dict(transform)
            samples = change(samples[None], SAMPLE_RATE_HZ)[0]
        return samples

    def _with_noise(self, cut: MonoCut, speech: Samples, random: np.random.Generator) -> Samples:
        noise, config = self.disturbance.noise, self.disturbance.noise_config
        if noise is None:
            return speech
        if not self.disturbance.training:
            return mix(speech, noise.draw(len(speech), fixed_random(cut.id)), config.dev_snr_db)
        if random.random() >= config.probability:
            return speech
        least_db, most_db = config.train_snr_db
        snr_db = random.uniform(least_db, most_db)
        return mix(speech, noise.draw(len(speech), random), snr_db)


def _stored(cut: MonoCut) -> NDArray[np.float32]:
    """Load the stored features (T, F) of a cut and check them: a damaged file would end the training in NaN."""
    expected = (cut.features.num_frames, cut.features.num_features)
    try:
        features: NDArray[np.float32] = cut.load_features()
        if features.shape != expected or features.dtype != np.float32 or not np.isfinite(features).all():
            raise ValueError(f"not {expected} finite numbers")
    except (OSError, ValueError, EOFError, MemoryError) as error:
        folder = cut.features.storage_path
        why = str(error).partition("\n")[0]
        raise UserError(
            f"{folder}/{cut.features.storage_key} is damaged: {why}; remove the folder {folder}, and start again"
        ) from error
    return features


@contextmanager
def _one_thread() -> Iterator[None]:
    """As in a loader process of torch: the last bit of a resampled signal depends on the number of threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
