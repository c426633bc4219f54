"""python -m nibble.report: write RESULTS.md, and the tables of README.md, from the records and benchmarks.

With --check, only say whether both are up to date.
"""

import argparse
import sys
from pathlib import Path

from nibble.bench.records import read as read_benchmarks
from nibble.errors import UserError
from nibble.evaluation.records import read
from nibble.report import benchmarks
from nibble.report.precisions import summary
from nibble.report.results import render

BEGIN, END = "<!-- results: written by make results -->", "<!-- end of results -->"


def main(arguments: list[str] | None = None) -> int:
    """Returns 0, or 1 if a document is not what the records say (--check) or cannot be written."""
    parser = argparse.ArgumentParser(prog="python -m nibble.report", description=__doc__)
    parser.add_argument("--records", type=Path, default=Path("results/records.jsonl"), metavar="FILE")
    parser.add_argument("--benchmarks", type=Path, default=Path("results/bench.jsonl"), metavar="FILE", help="if any")
    parser.add_argument("--output", type=Path, default=Path("RESULTS.md"), metavar="FILE")
    parser.add_argument("--readme", type=Path, default=Path("README.md"), metavar="FILE", help="its tables, if any")
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if a document would change")
    options = parser.parse_args(arguments)
    try:
        records = read(options.records)
        sections = [render(records), benchmarks.render(read_benchmarks(options.benchmarks))]
        documents = {options.output: "\n".join(filter(None, sections))}
        if options.readme.is_file():
            documents[options.readme] = with_tables(options.readme.read_text(encoding="utf-8"), summary(records))
        for path, text in documents.items():
            if not options.check:
                path.write_text(text, encoding="utf-8")
            elif not path.is_file() or path.read_text(encoding="utf-8") != text:
                raise UserError(f"{path} is not what {options.records} and {options.benchmarks} say; make results")
    except OSError as error:
        print(f"error: {error.filename} cannot be written: {error.strerror}", file=sys.stderr)
        return 1
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def with_tables(readme: str, tables: str) -> str:
    """`readme` with `tables` between its two markers; as it is if it has none."""
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{tables}\n{END}{after}" if begin and end else readme


if __name__ == "__main__":
    sys.exit(main())
