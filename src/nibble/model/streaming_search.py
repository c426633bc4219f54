"""Recognition of speech while it is being said."""

import torch
import torch.nn.functional as F
from torch import Tensor

from nibble.errors import UserError
from nibble.model.chunks import SILENCE, chunk_count, feature_frames
from nibble.model.decoding import GreedySearch, Hypothesis
from nibble.model.streaming_encoder import StreamingEncoder
from nibble.model.subsampling import FACTOR
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
        device = encoder.normalization.running_mean.device
        self._search = GreedySearch(model, 1, device)
        self._memory = encoder.start(1, device)
        self._waiting = torch.zeros(0, encoder.normalization.num_features, device=device)
        self._chunks = 0  # encoded

    @property
    def hypothesis(self) -> Hypothesis:
        """What was recognised so far."""
        return self._search.hypotheses[0]

    @torch.inference_mode()
    def accept(self, features: Tensor) -> None:
        """The next frames, (T, F); what makes a whole chunk is recognised at once."""
        chunk = self._encoder.chunk
        self._waiting = torch.cat((self._waiting, features))
        while len(self._waiting) >= feature_frames(1, chunk):
            self._recognise(self._waiting[: feature_frames(1, chunk)].unsqueeze(0))
            self._waiting = self._waiting[FACTOR * chunk :]

    @torch.inference_mode()
    def finish(self) -> None:
        """The utterance has ended: what is left of it is recognised with silence after it."""
        chunk, left = self._encoder.chunk, len(self._waiting)
        if chunk_count(FACTOR * chunk * self._chunks + left, chunk) > self._chunks:
            filled = F.pad(self._waiting, (0, 0, 0, feature_frames(1, chunk) - left), value=SILENCE)
            self._recognise(filled.unsqueeze(0))

    def _recognise(self, features: Tensor) -> None:
        """features (1, 4 c + 3, F): the next chunk."""
        chunk, device = self._encoder.chunk, features.device
        seen = torch.tensor([chunk * self._chunks], device=device)
        encoded, self._memory = self._encoder.step(features, self._memory, seen)
        self._search.extend(encoded, torch.tensor([chunk], device=device))
        self._chunks += 1
