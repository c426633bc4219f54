"""Divide a corpus in LibriSpeech layout into three folds, each tested on speakers that its training never hears.

python -m nibble.data.speaker_folds data/digits
python train.py experiment=digits_speakers data.corpus_dir=data/digits-fold1
python evaluate.py checkpoint=RUN part=test
"""

from dataclasses import dataclass, field
from pathlib import Path

from nibble import stopping
from nibble.commands.words import BARE, run_words
from nibble.data.corpora.speaker_folds import write_folds
from nibble.errors import UserError


@dataclass
class FoldsOptions:
    """The options of `python -m nibble.data.speaker_folds`."""

    corpus: list[str] = field(default_factory=list, metadata=BARE)  # its folder, as data.corpus_dir=

    def __post_init__(self) -> None:
        if len(self.corpus) != 1:
            raise UserError("give one corpus: python -m nibble.data.speaker_folds CORPUS_DIR")


def main(words: list[str] | None = None) -> int:
    """Returns 0, or 1 if something cannot be read or written."""
    return run_words(_write, FoldsOptions, __doc__, words)


def _write(options: FoldsOptions) -> None:
    for fold in write_folds(Path(options.corpus[0])):
        print(fold)


def run() -> None:
    """Run the command line."""
    stopping.run(main)
