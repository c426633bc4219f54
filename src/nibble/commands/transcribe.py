"""Text of audio files with a bundle: python -m nibble.transcribe model=runs/…/bundle speech.wav other.flac --timestamps

A run folder or a checkpoint works as well. Any rate and any number of channels that soundfile reads are taken. A folder
stands for the files in it.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from nibble import stopping
from nibble.errors import UserError
from nibble.inference.fused import fuse
from nibble.inference.transcription import transcribe
from nibble.model.decoding import Word
from nibble.progress import track
from nibble.runs.checkpoint import load_checkpoint


def main(arguments: list[str] | None = None) -> int:
    """Print the text of each file; a file that cannot be read is reported and the others go on.

    Returns:
        0, or 1 if the bundle or any file could not be read.
    """
    parser = argparse.ArgumentParser(prog="python -m nibble.transcribe", description=__doc__)
    parser.add_argument("model", type=_model, metavar="model=DIR", help="bundle folder, run folder or .ckpt")
    parser.add_argument("files", type=Path, nargs="+", metavar="file", help="audio, or a folder of audio")
    parser.add_argument("--timestamps", action="store_true", help="one word a line with its start in seconds")
    parser.add_argument("--beam-width", type=int, default=1, metavar="N", help="beam search; 1, the default: greedy")
    options = parser.parse_args(arguments)
    if options.beam_width < 1:
        parser.error(f"--beam-width {options.beam_width}; give at least 1")
    try:
        loaded = load_checkpoint(options.model)
        if loaded.frozen:
            fuse(loaded.model)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    files: list[Path] = []
    failed = 0
    for given in options.files:
        try:
            files += _files(given)
        except UserError as error:
            failed += 1
            print(f"error: {error}", file=sys.stderr)
    for path in track(files, "transcribing", len(files)):
        try:
            result = transcribe(loaded, path, options.beam_width)
        except UserError as error:
            failed += 1
            print(f"error: {error}", file=sys.stderr)
            continue
        prefix = f"{path}: " if len(files) > 1 else ""
        print(f"{prefix}{result.text}", flush=True)
        if options.timestamps:
            print("".join(_timed(result.words)), end="", flush=True)
    return 1 if failed else 0


def _model(word: str) -> Path:
    return Path(word.removeprefix("model="))


def _files(given: Path) -> list[Path]:
    """A file, or what is in a folder but for hidden files.

    Raises:
        UserError: there is nothing in the folder, or it cannot be read.
    """
    if not given.is_dir():
        return [given]
    try:
        found = sorted(file for file in given.iterdir() if not file.name.startswith("."))
    except OSError as error:
        raise UserError(f"{given} cannot be read: {error.strerror}") from error
    if not found:
        raise UserError(f"{given} is an empty folder")
    return found


def _timed(words: list[Word]) -> Iterator[str]:
    for word in words:
        yield f"{word.start_s:8.2f} s  {word.text}\n"


def run() -> None:
    """Run the command line."""
    stopping.run(main)
