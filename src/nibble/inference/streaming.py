"""Recognises speech while it is spoken, with a streaming model."""

import sys
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import torch
from torch import Tensor

from nibble.conventions import SAMPLE_RATE_HZ
from nibble.data.samples import Samples
from nibble.data.tokenizer import REPLACEMENT
from nibble.errors import UserError
from nibble.features.extractor import Features, make_features
from nibble.features.options import Normalization
from nibble.inference.transcription import Found, Transcription
from nibble.inference.windows import Window
from nibble.model.streaming_search import Stream
from nibble.runs.loaded import Loaded

PIECE_S = 0.1  # of a microphone, at a time
_BESIDE_FRAMES = 4  # feature frames next to an end of the samples whose values may change with more samples


def transcribe_stream(loaded: Loaded, pieces: Iterable[Samples], said: Callable[[str], None]) -> Transcription:
    """Recognise speech as its samples come.

    Args:
        loaded: a model that streams.
        pieces: samples (samples,) at 16 kHz in [-1, 1], of any length each.
        said: is given what is added to the text, as soon as it is recognised.

    Raises:
        UserError: the model encodes whole utterances only.
    """
    config = loaded.config.features
    if config.normalization is Normalization.utterance:
        raise UserError("this model normalises features over the whole utterance and cannot stream; leave stream out")
    stream, features = Stream(loaded.model), FeatureStream(make_features(config))
    device = next(iter(loaded.model.state_dict().values())).device
    told, samples = 0, 0  # characters and samples

    def tell(whole: bool = False) -> None:
        nonlocal told
        text = loaded.tokenizer.decode(stream.hypothesis.ids)
        if len(text) > told and (whole or not text.endswith(REPLACEMENT)):  # a character whose bytes are yet to come
            said(text[told:])
            told = len(text)

    for piece in pieces:
        samples += len(piece)
        stream.accept(features.accept(torch.from_numpy(piece)).to(device))
        tell()
    stream.accept(features.finish().to(device))
    stream.finish()
    tell(whole=True)
    found = Found(loaded)
    found.add([Window(0.0, np.zeros(samples, np.float32))], [stream.hypothesis])
    return found.transcription(samples / SAMPLE_RATE_HZ)


class FeatureStream:
    """Computes features of samples that come in pieces: the same as those of the whole.

    Args:
        features: whose frames depend on the samples nearby only.
    """

    def __init__(self, features: Features) -> None:
        self._features = features
        self._shift = round(features.shift_s * SAMPLE_RATE_HZ)
        self._held = torch.zeros(0)
        self._first = 0  # the frame with which the samples held begin
        self._given = 0  # frames that were returned

    def accept(self, samples: Tensor) -> Tensor:
        """The frames (T, F) that the next samples (samples,) complete; there may be none."""
        self._held = torch.cat((self._held, samples))
        return self._new_frames(self._held, _BESIDE_FRAMES)

    def finish(self) -> Tensor:
        """The frames (T, F) that are left when no more samples come."""
        if not len(self._held):
            return torch.zeros(0, self._features.bins)
        return self._new_frames(self._held, 0)

    def _new_frames(self, held: Tensor, unsure: int) -> Tensor:
        """The frames of `held` that were not returned yet, without the last `unsure`."""
        count = self._features.frame_count(len(held)) - unsure
        if self._first + count <= self._given:
            return torch.zeros(0, self._features.bins)
        new = self._features(held)[self._given - self._first : count]
        self._given = self._first + count
        first = max(0, self._given - _BESIDE_FRAMES)
        self._held, self._first = held[(first - self._first) * self._shift :], first
        return new


def microphone() -> Iterator[Samples]:
    """Raw 16-bit samples of one channel at 16 kHz from standard input, as `arecord -f S16_LE -r 16000 -t raw` sends."""
    size_bytes = 2 * int(PIECE_S * SAMPLE_RATE_HZ)
    while piece := sys.stdin.buffer.read(size_bytes):
        yield np.frombuffer(piece[: len(piece) // 2 * 2], "<i2").astype(np.float32) / np.float32(32768)
