"""Recognises long utterances in windows, as `nibble.transcribe` does."""

from itertools import chain

import torch

from nibble.conventions import SAMPLE_RATE_HZ
from nibble.data.batch import Batch, unlabelled
from nibble.evaluation.recognisers import Recogniser
from nibble.features.extractor import Features
from nibble.inference.transcription import batches
from nibble.inference.windows import windows


class Windowed:
    """Wraps a recogniser: long utterances are recognised in windows, all others whole.

    No model knows longer speech than it was trained on, and attention costs the square of the length.

    Args:
        recognise: the recogniser of batches.
        features: of the model.
        longest_s: the longest window, and longest utterance to recognise whole: `data.max_duration_s` of the training.
        batch_s: windows that are recognised together, in seconds with padding; 0: one by one.

    Attributes:
        utterances: how many were recognised in windows so far.
    """

    def __init__(self, recognise: Recogniser, features: Features, longest_s: float, batch_s: float) -> None:
        self.recognise = recognise
        self.features = features
        self.longest_s = longest_s
        self.batch_s = batch_s
        self.utterances = 0

    def __call__(self, batch: Batch) -> list[str]:
        """The text of each utterance. A batch with a long one must have its samples."""
        if max(batch.frame_counts) <= self.features.frame_count(int(self.longest_s * SAMPLE_RATE_HZ)):
            return self.recognise(batch)
        assert batch.samples is not None, "the loader keeps samples"
        long = [len(samples) > self.longest_s * SAMPLE_RATE_HZ for samples in batch.samples]
        self.utterances += sum(long)
        cut = [list(windows(iter([samples.numpy()]), self.longest_s)) for samples in batch.samples]
        texts: list[str] = []
        for together in batches(chain.from_iterable(cut), self.batch_s):
            samples = [torch.from_numpy(window.samples) for window in together]
            heard = unlabelled([self.features(one) for one in samples], samples)
            texts += self.recognise(heard.to(batch.features.device))
        found = iter(texts)
        return [" ".join(filter(None, [next(found) for _ in several])) for several in cut]
