"""Write a corpus as Lhotse Shar, shards that are read from start to end.

python -m nibble.data.shar CORPUS_DIR TARGET
python train.py data.corpus_dir=TARGET
"""

from dataclasses import dataclass, field
from pathlib import Path

from nibble import stopping
from nibble.commands.words import BARE, run_words
from nibble.data.corpora.locate import ROOT
from nibble.data.sources.recognise import parts_folder, parts_in, source_of
from nibble.data.sources.shar import is_shar, write_shar
from nibble.errors import UserError


@dataclass
class SharOptions:
    """The options of `python -m nibble.data.shar`."""

    folders: list[str] = field(default_factory=list, metadata=BARE)  # of the corpus, as data.corpus_dir=, and a new one

    def __post_init__(self) -> None:
        if len(self.folders) != 2:
            raise UserError("give the corpus and a new folder: python -m nibble.data.shar CORPUS_DIR TARGET")


def main(words: list[str] | None = None) -> int:
    """Returns 0, or 1 if something cannot be read or written."""
    return run_words(_write, SharOptions, __doc__, words)


def _write(options: SharOptions) -> None:
    corpus, target = (Path(folder) for folder in options.folders)
    folder = parts_folder(corpus, "CORPUS_DIR")
    target = target.resolve()  # Lhotse would take a path that begins with "pipe:" for a command
    target.mkdir(parents=True, exist_ok=True)
    for part, path in parts_in(folder).items():
        if not is_shar(target / part):
            write_shar(source_of(path), part, target, ROOT / "cache")


def run() -> None:
    """Run the command line."""
    stopping.run(main)
