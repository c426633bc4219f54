"""Recognises audio files with a loaded model."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from nibble.data.samples import at_16_khz, opened, read
from nibble.errors import UserError
from nibble.features.extractor import make_features
from nibble.model.decoding import Word, beam, greedy, word_timestamps
from nibble.runs.loaded import Loaded


@dataclass(frozen=True)
class Transcription:
    """What was recognised in one file."""

    text: str
    words: list[Word]


def transcribe(loaded: Loaded, path: Path, beam_width: int = 1) -> Transcription:
    """Recognise one audio file; greedy search if `beam_width` is 1.

    Raises:
        UserError: the file is absent, is not audio, or is truncated.
    """
    extractor = make_features(loaded.config.features)
    features = extractor(read_audio(path))
    with torch.inference_mode():
        encoded, lengths = loaded.model.encode(features[None], torch.tensor([len(features)]))
        if beam_width == 1:
            hypothesis = greedy(loaded.model, encoded, lengths)[0]
        else:
            hypothesis = beam(loaded.model, encoded, lengths, beam_width)[0]
    pieces = loaded.tokenizer.pieces(hypothesis.ids)
    frame_s = loaded.model.encoder.factor * extractor.shift_s
    return Transcription(loaded.tokenizer.decode(hypothesis.ids), word_timestamps(pieces, hypothesis.frames, frame_s))


def read_audio(path: Path) -> Tensor:
    """The samples (samples,) of a file at 16 kHz in [-1, 1]: channels averaged, then resampled.

    Raises:
        UserError: the file is absent, is not audio, is truncated, holds no samples, or some that are no numbers.
    """
    if not path.is_file():
        why = "is a folder within a folder; give it by itself" if path.is_dir() else "does not exist"
        raise UserError(f"{path} {why}")
    with opened(path) as file:
        samples, rate_hz = read(file, str(path)), file.samplerate
    if not len(samples):
        raise UserError(f"{path} holds no samples: 0 s of audio")
    return torch.from_numpy(at_16_khz(samples, rate_hz))
