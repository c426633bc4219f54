"""Recognises recordings of any length with a loaded model."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from nibble.conventions import SAMPLE_RATE_HZ
from nibble.data.samples import Samples
from nibble.errors import UserError
from nibble.features.extractor import make_features
from nibble.inference.reading import duration_s, pieces
from nibble.inference.seams import Heard, Passages
from nibble.inference.windows import Window, windows
from nibble.model.decoding import Hypothesis, Word, beam, greedy, word_timestamps
from nibble.quant.finite import checked_at_end
from nibble.runs.loaded import Loaded

BATCH_S = 60.0  # speech that is recognised at once: enough for all cores, and little memory


@dataclass(frozen=True)
class Transcription:
    """The text and words of one recording; times count from its start."""

    text: str
    words: list[Word]
    duration_s: float


def transcribe(
    loaded: Loaded, path: Path, beam_width: int = 1, heard: Callable[[float], None] = lambda _: None
) -> Transcription:
    """Recognise one recording.

    Time grows linearly with its length, and memory does not grow. A recording longer than the model's training
    utterances may be (`data.max_duration_s`) is cut into windows, at pauses or so that they overlap.

    Args:
        loaded: the model, on the device to use.
        path: an audio file of any rate and length.
        beam_width: hypotheses of beam search; 1 for greedy search.
        heard: called after each batch with the seconds of the recording that are newly done.

    Raises:
        UserError: the file is absent, is not audio, or is truncated.
    """
    duration_s(path)  # says why a file cannot be read
    found, done_s, samples = Found(loaded), 0.0, 0

    def counted() -> Iterator[Samples]:
        nonlocal samples
        for piece in pieces(path):
            samples += len(piece)
            yield piece

    for batch in batches(windows(counted(), loaded.config.data.max_duration_s)):
        found.add(batch, recognise(loaded, [window.samples for window in batch], beam_width))
        until_s = max(window.start_s + len(window.samples) / SAMPLE_RATE_HZ for window in batch)
        heard(max(0.0, until_s - done_s))
        done_s = max(done_s, until_s)
    if not samples:
        raise UserError(f"{path} holds no samples: 0 s of audio")
    heard(samples / SAMPLE_RATE_HZ - done_s)
    return found.transcription(samples / SAMPLE_RATE_HZ)


def batches(of: Iterable[Window], batch_s: float = BATCH_S) -> Iterator[list[Window]]:
    """The windows in order, as many together as `batch_s` holds, padding included; one of them in any case."""
    batch: list[Window] = []
    for window in of:
        longest = max(len(each.samples) for each in [*batch, window])
        if batch and (len(batch) + 1) * longest > batch_s * SAMPLE_RATE_HZ:
            yield batch
            batch = []
        batch.append(window)
    if batch:
        yield batch


@torch.inference_mode()
def recognise(loaded: Loaded, utterances: Sequence[Samples], beam_width: int = 1) -> list[Hypothesis]:
    """The labels of utterances (samples,) each, recognised together."""
    device = next(iter(loaded.model.state_dict().values())).device
    features, lengths = (part.to(device) for part in batch_features(loaded, utterances))
    with checked_at_end():
        encoded, lengths = loaded.model.encode(features, lengths)
        if beam_width == 1:
            return greedy(loaded.model, encoded, lengths)
        return beam(loaded.model, encoded, lengths, beam_width)


def batch_features(loaded: Loaded, utterances: Sequence[Samples]) -> tuple[Tensor, Tensor]:
    """What a model hears of utterances (samples,) each: features (B, T, F), lengths (B,)."""
    extractor = make_features(loaded.config.features)
    features = [extractor(torch.from_numpy(samples)) for samples in utterances]
    return pad_sequence(features, batch_first=True), torch.tensor([len(each) for each in features])


class Found:
    """Collects the text and words of a recording, window by window."""

    def __init__(self, loaded: Loaded) -> None:
        self._tokenizer = loaded.tokenizer
        self._frame_s = loaded.model.encoder.factor * make_features(loaded.config.features).shift_s
        self._passages: Passages[int] = Passages()

    def add(self, batch: Sequence[Window], hypotheses: Sequence[Hypothesis]) -> None:
        """What was recognised in the next windows."""
        for window, found in zip(batch, hypotheses, strict=True):
            self._passages.add(window, Heard(found.ids, [frame * self._frame_s for frame in found.frames]))

    def transcription(self, duration_s: float) -> Transcription:
        """All that was added, of a recording that lasts so long."""
        texts, words = [], []
        for passage in self._passages.found:
            texts.append(self._tokenizer.decode(passage.labels))
            for word in word_timestamps(self._tokenizer.pieces(passage.labels), passage.starts_s, self._frame_s):
                text, end_s = self._tokenizer.written([word.text]), min(word.end_s, duration_s)
                words.append(Word(text, min(word.start_s, end_s), end_s))
        return Transcription(" ".join(filter(None, texts)), words, duration_s)
