"""python -m nibble.report: write RESULTS.md from the records; with --check, only say whether it is up to date."""

import argparse
import sys
from pathlib import Path

from nibble.errors import UserError
from nibble.evaluation.records import read
from nibble.report.results import render


def main(arguments: list[str] | None = None) -> int:
    """Returns 0, or 1 if RESULTS.md is not what the records say (--check) or cannot be made."""
    parser = argparse.ArgumentParser(prog="python -m nibble.report", description=__doc__)
    parser.add_argument("--records", type=Path, default=Path("results/records.jsonl"), metavar="FILE")
    parser.add_argument("--output", type=Path, default=Path("RESULTS.md"), metavar="FILE")
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if the output would change")
    options = parser.parse_args(arguments)
    try:
        text = render(read(options.records))
        if options.check:
            if not options.output.is_file() or options.output.read_text(encoding="utf-8") != text:
                raise UserError(f"{options.output} is not what {options.records} says; make results")
            return 0
        options.output.write_text(text, encoding="utf-8")
    except OSError as error:
        print(f"error: {options.output} cannot be written: {error.strerror}", file=sys.stderr)
        return 1
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
