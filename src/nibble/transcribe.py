"""Text of audio files with a bundle: python -m nibble.transcribe runs/…/bundle speech.wav other.flac --timestamps

A run folder or a checkpoint works as well. Any rate and any number of channels that soundfile reads are taken.
"""

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import soundfile
import torch
import torchaudio
from torch import Tensor

from nibble.data.progress import track
from nibble.errors import UserError
from nibble.export.checkpoint import load_checkpoint
from nibble.export.loaded import Loaded
from nibble.features import SAMPLE_RATE, log_mel
from nibble.model.decoding import Word, beam, greedy, word_timestamps


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
    features = log_mel(read_audio(path), loaded.config.features)
    with torch.inference_mode():
        encoded, lengths = loaded.model.encode(features[None], torch.tensor([len(features)]))
        if beam_width == 1:
            hypothesis = greedy(loaded.model, encoded, lengths)[0]
        else:
            hypothesis = beam(loaded.model, encoded, lengths, beam_width)[0]
    pieces = loaded.tokenizer.pieces(hypothesis.ids)
    return Transcription(loaded.tokenizer.decode(hypothesis.ids), word_timestamps(pieces, hypothesis.frames))


def read_audio(path: Path) -> Tensor:
    """The samples (samples,) of a file at 16 kHz in [-1, 1]: channels averaged, then resampled.

    Raises:
        UserError: the file is absent, is not audio, is truncated, or holds no samples.
    """
    if not path.is_file():
        raise UserError(f"{path} does not exist" if not path.exists() else f"{path} is a folder; give files")
    try:
        with soundfile.SoundFile(path) as file:
            promised, rate_hz = file.frames, file.samplerate
            samples = torch.from_numpy(file.read(dtype="float32", always_2d=True)).mean(dim=1)
    except soundfile.LibsndfileError as error:
        raise UserError(f"{path} is not audio that can be read, or is truncated: {error}") from error
    if len(samples) < promised:
        raise UserError(f"{path} is truncated: it promises {promised} samples and holds {len(samples)}")
    if len(samples) == 0:
        raise UserError(f"{path} holds no samples")
    return torchaudio.functional.resample(samples, rate_hz, SAMPLE_RATE)


def main(arguments: list[str] | None = None) -> int:
    """Print the text of each file; a file that cannot be read is reported and the others go on.

    Returns:
        0, or 1 if the bundle or any file could not be read.
    """
    parser = argparse.ArgumentParser(prog="python -m nibble.transcribe", description=__doc__)
    parser.add_argument("bundle", type=Path, help="bundle folder, run folder or .ckpt")
    parser.add_argument("files", type=Path, nargs="+", metavar="file", help="audio")
    parser.add_argument("--timestamps", action="store_true", help="one word a line with its start in seconds")
    parser.add_argument("--beam-width", type=int, default=1, metavar="N", help="beam search; 1, the default: greedy")
    options = parser.parse_args(arguments)
    if options.beam_width < 1:
        parser.error(f"--beam-width {options.beam_width}; give at least 1")
    try:
        loaded = load_checkpoint(options.bundle)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    failed = 0
    for path in track(options.files, "transcribing", len(options.files)):
        try:
            result = transcribe(loaded, path, options.beam_width)
        except UserError as error:
            failed += 1
            print(f"error: {error}", file=sys.stderr)
            continue
        prefix = f"{path}: " if len(options.files) > 1 else ""
        print(f"{prefix}{result.text}", flush=True)
        if options.timestamps:
            print("".join(_timed(result.words)), end="", flush=True)
    return 1 if failed else 0


def _timed(words: list[Word]) -> Iterator[str]:
    for word in words:
        yield f"{word.start_s:8.2f} s  {word.text}\n"


if __name__ == "__main__":
    sys.exit(main())
