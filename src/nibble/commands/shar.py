"""Write a corpus as Lhotse Shar: python -m nibble.data.shar CORPUS_DIR TARGET, then data.corpus_dir=TARGET."""

import argparse
import sys
from pathlib import Path

from nibble import stopping
from nibble.data.corpora.locate import ROOT
from nibble.data.sources.recognise import parts_folder, parts_in, source_of
from nibble.data.sources.shar import is_shar, write_shar
from nibble.errors import UserError


def main(arguments: list[str] | None = None) -> int:
    """Returns 0, or 1 if something cannot be read or written."""
    parser = argparse.ArgumentParser(
        prog="python -m nibble.data.shar",
        description=__doc__,
    )
    parser.add_argument("corpus", type=Path, metavar="CORPUS_DIR", help="a folder of parts, as data.corpus_dir=")
    parser.add_argument("target", type=Path, metavar="TARGET", help="a new folder")
    options = parser.parse_args(arguments)
    try:
        folder = parts_folder(options.corpus, "CORPUS_DIR")
        target = options.target.resolve()  # Lhotse would take a path that begins with "pipe:" for a command
        target.mkdir(parents=True, exist_ok=True)
        for part, path in parts_in(folder).items():
            if not is_shar(target / part):
                write_shar(source_of(path), part, target, ROOT / "cache")
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def run() -> None:
    """Run the command line."""
    stopping.run(main)
