"""Text of audio files with a trained model: python -m nibble.transcribe model=runs/…/bundle speech.wav --format srt

Any length, rate and number of channels. A folder stands for the files in it. A bundle, a run folder or a checkpoint
works as model. A model that streams can follow a microphone: … --stream - (docs/transcription.md).
"""

import argparse
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from nibble import stopping
from nibble.errors import UserError, nearest
from nibble.inference.formats import Format, written
from nibble.inference.fused import fuse
from nibble.inference.reading import duration_s, pieces
from nibble.inference.streaming import PIECE_S, microphone, transcribe_stream
from nibble.inference.transcription import Transcription, transcribe
from nibble.kernels.gpu import missing_gpu
from nibble.model.decoding import Word
from nibble.progress import seconds_bar
from nibble.runs.checkpoint import load_checkpoint
from nibble.runs.loaded import Loaded
from nibble.writing import write_text

MICROPHONE = Path("-")
_DEVICES = ("cpu", "cuda", "auto")


def main(arguments: list[str] | None = None) -> int:
    """Transcribe each file; a file that cannot be read is reported and the others go on.

    Returns:
        0, or 1 if the model or any file could not be read.
    """
    options = _parser().parse_intermixed_args(arguments)
    try:
        _check(options)
        loaded = _loaded(options.model, options.device)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    files, failed = _readable(options.files)
    try:
        targets = _targets(files, options.output, options.format)
        several = len(files) > 1
        if several and options.output is None and options.format in (Format.srt, Format.vtt):
            raise UserError(f"--format {options.format} of several files needs --output DIR: it makes a file of each")
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    total_s = sum(lasts_s or 0.0 for lasts_s in files.values())
    with seconds_bar("transcribing", total_s or None) as heard:
        for path in files:
            try:
                show(_recognised(loaded, path, options, heard), path, targets.get(path), options, several)
            except UserError as error:
                failed += 1
                print(f"error: {error}", file=sys.stderr)
    return 1 if failed else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m nibble.transcribe", description=__doc__)
    parser.add_argument("model", type=_model, metavar="model=DIR", help="bundle folder, run folder or .ckpt")
    parser.add_argument("files", type=Path, nargs="+", metavar="file", help="audio, or a folder of audio")
    parser.add_argument("--format", default="txt", help=f"{', '.join(Format)}; txt, the default, is the text alone")
    parser.add_argument("--output", type=Path, metavar="DIR", help="write DIR/NAME.FORMAT for each file")
    parser.add_argument("--timestamps", action="store_true", help="txt: also one word a line with its start in seconds")
    parser.add_argument("--beam-width", type=int, default=1, metavar="N", help="beam search; 1, the default: greedy")
    parser.add_argument("--device", default="cpu", help="cpu, the default; cuda; auto: a GPU if there is one")
    parser.add_argument("--stream", action="store_true", help="show text as it is heard; the file - is a microphone")
    return parser


def _check(options: argparse.Namespace) -> None:
    """Raise `UserError` for options that contradict, before anything is loaded."""
    if options.format not in list(Format):
        raise UserError(f"--format {options.format}; nearest: {nearest(options.format, list(Format))}")
    options.format = Format(options.format)
    if options.beam_width < 1:
        raise UserError(f"--beam-width {options.beam_width}; give at least 1")
    if options.device not in _DEVICES:
        raise UserError(f"--device {options.device}; nearest: {nearest(options.device, _DEVICES)}")
    if options.timestamps and options.format is not Format.txt:
        raise UserError(f"--timestamps goes with --format txt; {options.format} has the times of words itself")
    if MICROPHONE in options.files and not options.stream:
        raise UserError("the file - is a microphone, which needs --stream and a model that streams")
    if options.stream and options.beam_width > 1:
        raise UserError("--stream finds each word at once, by greedy search; leave --beam-width out")


def _loaded(model: Path, device: str) -> Loaded:
    """The model on its device, fused if it is a bundle."""
    place = torch.device("cpu")
    if device != "cpu":
        reason = missing_gpu()
        if reason is None:
            place = torch.device("cuda")
        elif device == "cuda":
            raise UserError(f"--device cuda: {reason}. Give --device cpu, or look at what nvidia-smi says")
    loaded = load_checkpoint(model)
    loaded.model.to(place)
    if loaded.frozen:
        fuse(loaded.model)
    return loaded


def _recognised(
    loaded: Loaded, path: Path, options: argparse.Namespace, heard: Callable[[float], None]
) -> Transcription:
    """What is said in a file; with --stream and nowhere else to write it, it is printed as it is recognised."""
    if not options.stream:
        return transcribe(loaded, path, options.beam_width, heard)
    source = microphone() if path == MICROPHONE else pieces(path, PIECE_S)
    if options.format is not Format.txt or options.output is not None:
        return transcribe_stream(loaded, source, lambda _: None)
    found = transcribe_stream(loaded, source, lambda more: print(more, end="", flush=True))
    print(flush=True)
    return found


def show(found: Transcription, path: Path, target: Path | None, options: argparse.Namespace, several: bool) -> None:
    """Print a transcription, or write it to `target`."""
    text = written(found, path, options.format)
    if options.timestamps:
        text += "".join(_timed(found.words))
    if target is not None:
        try:
            write_text(target, text)
        except OSError as error:
            raise UserError(f"cannot write {target}: {error.strerror}; choose another --output DIR") from error
    elif options.stream and options.format is Format.txt:
        print("".join(_timed(found.words)) if options.timestamps else "", end="", flush=True)
    else:
        prefix = f"{path}: " if several and options.format is Format.txt else ""
        print(f"{prefix}{text}", end="", flush=True)


def _model(word: str) -> Path:
    return Path(word.removeprefix("model="))


def _readable(given: list[Path]) -> tuple[dict[Path, float | None], int]:
    """The files with their lengths in seconds where these are known, and how many cannot be read, which is said."""
    files: dict[Path, float | None] = {}
    failed = 0
    for word in given:
        try:
            inside = [word] if word == MICROPHONE else _files(word)
        except UserError as error:
            failed += 1
            print(f"error: {error}", file=sys.stderr)
            continue
        for path in inside:
            try:
                files[path] = None if path == MICROPHONE else duration_s(path)
            except UserError as error:
                failed += 1
                print(f"error: {error}", file=sys.stderr)
    return files, failed


def _targets(files: dict[Path, float | None], output: Path | None, kind: Format) -> dict[Path, Path]:
    """Where the transcription of each file goes; empty if they are printed.

    Raises:
        UserError: two would go to the same file, or the folder cannot be made.
    """
    if output is None:
        return {}
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot create {output}: {error.strerror}; choose another --output DIR") from error
    taken: dict[Path, Path] = {}
    for path in files:
        name = "microphone" if path == MICROPHONE else path.stem
        target = output / f"{name}.{kind}"
        if target in taken.values():
            other = next(file for file, its in taken.items() if its == target)
            raise UserError(f"{other} and {path} would both be written to {target}; transcribe them one by one")
        taken[path] = target
    return taken


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
