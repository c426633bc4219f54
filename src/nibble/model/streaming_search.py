"""Greedy search while speech is spoken."""

import torch
import torch.nn.functional as F
from torch import Tensor

from nibble.errors import UserError
from nibble.model.chunks import SILENCE
from nibble.model.decoding import GreedySearch, Hypothesis
from nibble.model.streaming_encoder import StreamingEncoder
from nibble.model.transducer import Transducer


class Stream:
    """One utterance, by greedy search as its frames come.

    At its end, the labels are those that `greedy` finds in the whole utterance.

    Args:
        model: a transducer that streams, in eval mode.

    Raises:
        UserError: the model encodes whole utterances only.
    """

    @torch.inference_mode()
    def __init__(self, model: Transducer) -> None:
        encoder = model.encoder
        if not isinstance(encoder, StreamingEncoder):
            raise UserError("this model encodes whole utterances: train one that streams, model=conformer_stream_s")
        self._encoder = encoder
        device = next(encoder.parameters()).device
        self._search = GreedySearch(model, 1, device)
        self._memory = encoder.start(1, device)
        self._waiting = torch.zeros(0, encoder.mel_bins, device=device)
        self._chunks = 0  # encoded

    @property
    def hypothesis(self) -> Hypothesis:
        """The labels recognised so far."""
        return self._search.hypotheses[0]

    @torch.inference_mode()
    def accept(self, features: Tensor) -> None:
        """The next frames, (T, F); each chunk is recognised as soon as it is complete."""
        chunks = self._encoder.chunks
        self._waiting = torch.cat((self._waiting, features))
        while len(self._waiting) >= chunks.feature_frames():
            self._recognise(self._waiting[: chunks.feature_frames()].unsqueeze(0))
            self._waiting = self._waiting[chunks.factor * chunks.frames :]

    @torch.inference_mode()
    def finish(self) -> None:
        """The utterance has ended: the rest of it is recognised with silence after it."""
        chunks, left = self._encoder.chunks, len(self._waiting)
        if chunks.count(chunks.factor * chunks.frames * self._chunks + left) > self._chunks:
            filled = F.pad(self._waiting, (0, 0, 0, chunks.feature_frames() - left), value=SILENCE)
            self._recognise(filled.unsqueeze(0))

    def _recognise(self, features: Tensor) -> None:
        """features (1, 4 c + 3, F): the next chunk."""
        chunk, device = self._encoder.chunks.frames, features.device
        seen = torch.tensor([chunk * self._chunks], device=device)
        encoded, self._memory = self._encoder.step(features, self._memory, seen)
        self._search.extend(encoded, torch.tensor([chunk], device=device))
        self._chunks += 1
