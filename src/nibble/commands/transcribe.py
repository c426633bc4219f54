"""Transcribe audio files with a trained model.

python -m nibble.transcribe model=runs/NAME/RUN/bundle speech.wav
python -m nibble.transcribe model=runs/NAME/RUN/bundle meetings/ format=srt output=subtitles
python -m nibble.transcribe model=runs/NAME/RUN/bundle - stream=true     a microphone, see docs/transcription.md

Audio has any length, rate and number of channels. A folder stands for the files in it.
"""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

import torch

from nibble import stopping
from nibble.commands.words import BARE, run_words
from nibble.errors import UserError
from nibble.inference.formats import Format, written
from nibble.inference.fused import fuse
from nibble.inference.reading import duration_s, pieces
from nibble.inference.streaming import PIECE_S, microphone, transcribe_stream
from nibble.inference.transcription import Transcription, transcribe
from nibble.kernels.gpu import missing_gpu
from nibble.model.decoding import Word
from nibble.progress import seconds_bar
from nibble.ranges import Range, check
from nibble.runs.checkpoint import load_checkpoint
from nibble.runs.loaded import Loaded
from nibble.writing import writable_folder, write_text

MICROPHONE = Path("-")


class Device(StrEnum):
    """Where a model runs."""

    cpu = "cpu"
    cuda = "cuda"
    auto = "auto"  # a GPU if there is one


@dataclass
class TranscribeOptions:
    """The options of `python -m nibble.transcribe`."""

    model: str  # a bundle, a run folder or a .ckpt
    files: list[str] = field(default_factory=list, metadata=BARE)  # audio files and folders of them; - is a microphone
    format: Format = Format.txt  # txt: the text alone
    output: str | None = None  # a folder for a file of each recording; null: print
    timestamps: bool = False  # with format=txt: each word on a line of its own as well, with its start in seconds
    beam_width: int = 1  # 1: greedy search
    device: Device = Device.cpu  # auto: a GPU if there is one
    stream: bool = False  # show text while it is heard, with a model that streams

    def __post_init__(self) -> None:
        check(self, "", beam_width=Range(1, 1_000))
        if not self.files:
            raise UserError("transcribe what? Give audio files or folders of them, or - for a microphone")
        if self.timestamps and self.format is not Format.txt:
            raise UserError(f"timestamps=true goes with format=txt; {self.format} has the times of words itself")
        if str(MICROPHONE) in self.files and not self.stream:
            raise UserError("the file - is a microphone, which needs stream=true and a model that streams")
        if self.stream and self.beam_width > 1:
            raise UserError("stream=true finds each word at once, by greedy search; leave beam_width out")


def main(words: list[str] | None = None) -> int:
    """Transcribe each file; a file that cannot be read is reported and the others go on.

    Returns:
        0, or 1 if the model or any file could not be read.
    """
    return run_words(transcribe_all, TranscribeOptions, __doc__, words)


def transcribe_all(options: TranscribeOptions) -> int:
    """As `main`.

    Raises:
        UserError: the model cannot be read, or the transcriptions have no place to go to.
    """
    loaded = _loaded(Path(options.model), options.device)
    files, failed = _readable([Path(word) for word in options.files])
    several = len(files) > 1
    if several and options.output is None and options.format in (Format.srt, Format.vtt):
        raise UserError(f"format={options.format} of several files needs output=DIR: it makes a file of each")
    targets = _targets(files, options.output, options.format)
    total_s = sum(lasts_s or 0.0 for lasts_s in files.values())
    with seconds_bar("transcribing", total_s or None) as heard:
        for path in files:
            try:
                show(_recognised(loaded, path, options, heard), path, targets.get(path), options, several)
            except UserError as error:
                failed += 1
                print(f"error: {error}", file=sys.stderr)
    return 1 if failed else 0


def _loaded(model: Path, device: Device) -> Loaded:
    """The model on its device, fused if it is a bundle."""
    place = torch.device("cpu")
    if device is not Device.cpu:
        reason = missing_gpu()
        if reason is None:
            place = torch.device("cuda")
        elif device is Device.cuda:
            raise UserError(f"device=cuda: {reason}. Give device=cpu, or look at what nvidia-smi says")
    loaded = load_checkpoint(model)
    loaded.model.to(place)
    if loaded.frozen:
        fuse(loaded.model)
    return loaded


def _recognised(
    loaded: Loaded, path: Path, options: TranscribeOptions, heard: Callable[[float], None]
) -> Transcription:
    """What is said in a file. With stream=true, and without another place for it, it is printed while it is heard."""
    if not options.stream:
        return transcribe(loaded, path, options.beam_width, heard)
    source = microphone() if path == MICROPHONE else pieces(path, PIECE_S)
    if options.format is not Format.txt or options.output is not None:
        return transcribe_stream(loaded, source, lambda _: None)
    found = transcribe_stream(loaded, source, lambda more: print(more, end="", flush=True))
    print(flush=True)
    return found


def show(found: Transcription, path: Path, target: Path | None, options: TranscribeOptions, several: bool) -> None:
    """Print a transcription, or write it to `target`."""
    text = written(found, path, options.format)
    if options.timestamps:
        text += "".join(_timed(found.words))
    if target is not None:
        try:
            write_text(target, text)
        except OSError as error:
            raise UserError(f"cannot write {target}: {error.strerror}; choose another output=DIR") from error
    elif options.stream and options.format is Format.txt:
        print("".join(_timed(found.words)) if options.timestamps else "", end="", flush=True)
    else:
        prefix = f"{path}: " if several and options.format is Format.txt else ""
        print(f"{prefix}{text}", end="", flush=True)


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


def _targets(files: dict[Path, float | None], output: str | None, kind: Format) -> dict[Path, Path]:
    """Where the transcription of each file goes; empty if they are printed.

    Raises:
        UserError: two would go to the same file, or the folder cannot be made.
    """
    if output is None:
        return {}
    folder = writable_folder(Path(output), "output")
    taken: dict[Path, Path] = {}
    for path in files:
        name = "microphone" if path == MICROPHONE else path.stem
        target = folder / f"{name}.{kind}"
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
