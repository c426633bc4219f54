"""Join the utterances of a part to 20, 40 and 60 seconds, to measure what length costs.

python -m nibble.data.lengthen data/digits part=dev-digits
python evaluate.py checkpoint=[RUN,RUN] data.corpus_dir=data/digits-long part=test-60s
"""

from dataclasses import dataclass, field
from pathlib import Path

from nibble import stopping
from nibble.commands.words import BARE, run_words
from nibble.data.corpora.lengthened import write_lengthened
from nibble.data.corpora.locate import ROOT
from nibble.errors import UserError


@dataclass
class LengthenOptions:
    """The options of `python -m nibble.data.lengthen`."""

    part: str  # whose utterances are joined
    corpus: list[str] = field(default_factory=list, metadata=BARE)  # its folder, as data.corpus_dir=

    def __post_init__(self) -> None:
        if len(self.corpus) != 1:
            raise UserError("give one corpus: python -m nibble.data.lengthen CORPUS_DIR part=PART")


def main(words: list[str] | None = None) -> int:
    """Returns 0, or 1 if something cannot be read or written."""
    return run_words(_write, LengthenOptions, __doc__, words)


def _write(options: LengthenOptions) -> None:
    print(write_lengthened(Path(options.corpus[0]), options.part, ROOT / "cache"))


def run() -> None:
    """Run the command line."""
    stopping.run(main)
