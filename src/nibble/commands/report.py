"""With runs: print their table, and write one HTML file that compares them and shows each, without a network.

With --format: the table alone, as Markdown, CSV, JSON or LaTeX.

With `publish` before them: copy their records, and benchmarks, from runs/ to results/.
Without runs: write RESULTS.md, and the tables of README.md, from what is published in results/.

python -m nibble.report runs/digits
python -m nibble.report runs/digits --format latex
python -m nibble.report publish runs/digits runs/bench.jsonl
python -m nibble.report
"""

import argparse
import os
import sys
from pathlib import Path

from nibble import stopping
from nibble.errors import UserError
from nibble.report.documents import write_documents
from nibble.report.formats import Format, table, written
from nibble.report.gathering import gather
from nibble.report.page.contents import collect
from nibble.report.page.writing import render
from nibble.report.publishing import BENCHMARKS, RECORDS, RESULTS, publish
from nibble.terminal import Console
from nibble.writing import write_text


def main(arguments: list[str] | None = None) -> int:
    """Returns 0, or 1 if there is nothing to report, a file cannot be written, or --check finds a difference."""
    options = _parser().parse_args(arguments)
    own = options.records or Path("runs", RECORDS)
    try:
        if options.runs[:1] == [Path("publish")]:
            if not options.runs[1:]:
                raise UserError("publish what? Give runs, or runs/bench.jsonl: python -m nibble.report publish RUN")
            for line in publish(options.runs[1:], own):
                print(line)
            print("python -m nibble.report")
        elif options.runs:
            report(options, own)
        elif options.format is not None or options.part is not None:
            raise UserError("--format and --part are for runs: python -m nibble.report runs/NAME --format md")
        else:
            output = options.output or Path("RESULTS.md")
            records = options.records or RESULTS / RECORDS
            write_documents(records, options.benchmarks, options.published, output, options.readme, options.check)
    except OSError as error:
        print(f"error: {error.filename} cannot be written: {error.strerror}", file=sys.stderr)
        return 1
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def report(options: argparse.Namespace, records: Path) -> None:
    """Write the page of some runs, or their table, from their evaluations in `records`."""
    if options.check:
        raise UserError("--check compares RESULTS.md with the records; leave the runs out")
    comparison, notes = gather(options.runs, records, options.part)
    for note in notes:
        print(note, file=sys.stderr)
    format_ = options.format or Format.html
    if format_ is not Format.html:
        text = written(comparison, format_)
        if options.output is None:
            print(text, end="")
            return
    else:
        text = render(comparison, collect(comparison, options.utterances), notes)
        Console().print(table(comparison))
    output: Path = options.output or _common(options.runs) / "report.html"
    write_text(output, text)
    print(f"{output}: {output.stat().st_size:,} bytes")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m nibble.report", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path, nargs="*", metavar="RUN", help="a run folder, or a folder of runs; publish")
    parser.add_argument("--format", type=Format, choices=list(Format), help="of runs")
    parser.add_argument("--part", metavar="NAME", help="of runs: the part they were evaluated on, if on several")
    parser.add_argument("--utterances", type=int, default=12, metavar="N", help="worst utterances on the page; 0: none")
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help="RESULTS.md; of runs: report.html in their folder, for other formats standard output",
    )
    parser.add_argument(
        "--records", type=Path, metavar="FILE", help="runs/records.jsonl; of RESULTS.md results/records.jsonl"
    )
    parser.add_argument("--benchmarks", type=Path, default=RESULTS / BENCHMARKS, metavar="FILE", help="if any")
    parser.add_argument("--published", type=Path, default=RESULTS / "published.jsonl", metavar="FILE", help="of others")
    parser.add_argument("--readme", type=Path, default=Path("README.md"), metavar="FILE", help="its tables, if any")
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if a document would change")
    return parser


def _common(paths: list[Path]) -> Path:
    """The folder that all paths are in, or are."""
    return Path(os.path.commonpath([path.resolve() for path in paths]))


def run() -> None:
    """Run the command line."""
    stopping.run(main)
