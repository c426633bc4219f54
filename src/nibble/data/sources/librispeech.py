"""A part in LibriSpeech layout.

PART/SPEAKER/CHAPTER/SPEAKER-CHAPTER-0000.flac     or another ending of audio
PART/SPEAKER/CHAPTER/SPEAKER-CHAPTER.trans.txt     "SPEAKER-CHAPTER-0000 THE WORDS" a line
"""

import unicodedata
from collections.abc import Iterator
from pathlib import Path

from nibble.data.audio import is_audio
from nibble.data.files import files
from nibble.data.sources.lines import numbered_lines
from nibble.data.sources.source import Claim, Problem
from nibble.errors import UserError

TRANSCRIPT = ".trans.txt"
LAYOUT = "PART/SPEAKER/CHAPTER/*.flac with SPEAKER-CHAPTER.trans.txt beside them"


class LibriSpeech:
    """Transcripts, and audio files that are named by the ids in them."""

    def __init__(self, root: Path) -> None:
        if not root.is_dir():
            raise UserError(f"no folder {root}")
        self.path = self.root = root

    def lists_audio(self) -> bool:
        """All audio lies in the part."""
        return True

    def files(self) -> Iterator[Path]:
        """Transcripts and audio, sorted."""
        found = sorted(path for path in files(self.root) if path.name.endswith(TRANSCRIPT) or is_audio(path))
        if not found:
            raise UserError(f"{self.root} holds neither audio nor transcripts; LibriSpeech layout is {LAYOUT}")
        return iter(found)

    def claims(self) -> Iterator[Claim | Problem]:
        """The lines of all transcripts, sorted by id."""
        paths = list(self.files())
        audio: dict[str, Path] = {}
        twice: dict[str, Problem] = {}
        for path in paths:
            if is_audio(path):
                name = _id(path.name.removesuffix(path.suffix))
                if name in audio:
                    twice[name] = Problem(name, "two audio files", f"{audio[name]} and {path}; remove one")
                audio[name] = path
        texts: dict[str, str] = {}
        for path in paths:
            if path.name.endswith(TRANSCRIPT):
                for _, line in numbered_lines(path):
                    name, text = [*line.split(maxsplit=1), ""][:2]
                    name = _id(name)
                    if name in texts:
                        twice[name] = Problem(name, "two transcripts", f"the second in {path}")
                    texts[name] = text
        for name in sorted(audio.keys() | texts.keys()):
            if name in twice:
                yield twice[name]
            elif name not in texts:
                yield Problem(name, "audio without transcript", str(audio[name]))
            elif name not in audio:
                yield Problem(name, "transcript without audio")
            else:
                place = audio[name].relative_to(self.root).as_posix()
                yield Claim(name, texts[name], place, labels={"speaker": name.split("-")[0]})


def _id(name: str) -> str:
    """The Unicode normal form of a name: macOS writes the accents of file names as separate characters."""
    return unicodedata.normalize("NFC", name.removeprefix("\ufeff"))
