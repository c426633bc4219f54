"""Recognises long utterances in windows, as `nibble.transcribe` does."""

from collections.abc import Iterable, Sequence
from itertools import chain, islice
from typing import Any

import torch
from torch import Tensor

from nibble.data.batch import Batch, unlabelled
from nibble.evaluation.recognisers import Recogniser
from nibble.features.extractor import Features
from nibble.inference.seams import Heard, Passages
from nibble.inference.transcription import batches
from nibble.inference.windows import Window, windows


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

    def __init__(self, recognise: Recogniser[Any], features: Features, longest_s: float, batch_s: float) -> None:
        self.recognise = recognise
        self.features = features
        self.longest_s = longest_s
        self.batch_s = batch_s
        self.utterances = 0

    def __call__(self, batch: Batch) -> list[str]:
        """The text of each utterance of a batch that has its samples."""
        assert batch.samples is not None, "the loader keeps samples"
        cut = [list(windows(iter([samples.numpy()]), self.longest_s)) for samples in batch.samples]
        whole = [_is_whole(several, samples) for several, samples in zip(cut, batch.samples, strict=True)]
        if all(whole):
            return self.recognise(batch)
        self.utterances += whole.count(False)
        heard: list[Heard[Any]] = []
        for together in batches(chain.from_iterable(cut), self.batch_s):
            samples = [torch.from_numpy(window.samples) for window in together]
            part = unlabelled([self.features(one) for one in samples], samples)
            heard += self.recognise.hear(part.to(batch.features.device))
        found = iter(heard)
        return [self._text(several, islice(found, len(several))) for several in cut]

    def _text(self, cut: Sequence[Window], heard: Iterable[Heard[Any]]) -> str:
        """The text of one utterance, from what was heard in its windows."""
        passages: Passages[Any] = Passages()
        for window, found in zip(cut, heard, strict=True):
            passages.add(window, found)
        return " ".join(filter(None, [self.recognise.text(passage.labels) for passage in passages.found]))


def _is_whole(cut: Sequence[Window], samples: Tensor) -> bool:
    """Whether an utterance (samples,) was not cut into windows."""
    return len(cut) == 1 and len(cut[0].samples) == len(samples)
