"""Compare runs in a table and on one HTML page, which needs no network.

python -m nibble.report runs/digits                            print the table and write runs/digits/report.html
python -m nibble.report runs/digits format=latex               the table alone: md, csv, json or latex
python -m nibble.report publish runs/digits runs/bench.jsonl   copy records and benchmarks from runs/ to results/
python -m nibble.report                                        write RESULTS.md, BENCHMARKS.md and tables of README.md
"""

import os
import sys
from dataclasses import dataclass, field
from pathlib import Path

from nibble import stopping
from nibble.commands.words import BARE, run_words
from nibble.errors import UserError
from nibble.ranges import COUNT_OR_NONE, check
from nibble.report import published
from nibble.report.documents import write_documents
from nibble.report.formats import Format, table, written
from nibble.report.gathering import gather
from nibble.report.page.contents import collect
from nibble.report.page.writing import render
from nibble.report.publishing import BENCHMARKS, RECORDS, RESULTS, publish
from nibble.terminal import Console
from nibble.writing import write_text

PUBLISH = "publish"


@dataclass
class ReportOptions:
    """The options of `python -m nibble.report`."""

    runs: list[str] = field(default_factory=list, metadata=BARE)  # run folders and folders of them; none: results/
    format: Format | None = None  # of runs; null: the page, html
    part: str | None = None  # of runs: the part of the corpus they were evaluated on; null: there is one
    utterances: int = 12  # of runs: how many of the worst utterances the page shows
    output: str | None = None  # file to write; null: report.html beside the runs, or RESULTS.md
    records: str | None = None  # evaluations; null: runs/records.jsonl of runs, results/records.jsonl of RESULTS.md
    benchmarks: str = str(RESULTS / BENCHMARKS)  # of BENCHMARKS.md
    published: str = str(RESULTS / "published.jsonl")  # what others have published
    readme: str = "README.md"  # whose tables are written along with RESULTS.md
    check: bool = False  # write nothing; exit with 1 if RESULTS.md or the tables of README.md would change

    def __post_init__(self) -> None:
        check(self, "", utterances=COUNT_OR_NONE)
        if self.runs[:1] == [PUBLISH] and not self.runs[1:]:
            raise UserError("publish what? Give runs, or runs/bench.jsonl: python -m nibble.report publish RUN")
        if self.runs and self.check:
            raise UserError("check=true compares RESULTS.md with the records; leave the runs out")
        if not self.runs and (self.format is not None or self.part is not None):
            raise UserError("format= and part= are for runs: python -m nibble.report runs/NAME format=md")


def main(words: list[str] | None = None) -> int:
    """Returns 0, or 1 if there is nothing to report, a file cannot be written, or check=true finds a difference."""
    return run_words(_report, ReportOptions, __doc__, words)


def _report(options: ReportOptions) -> None:
    runs = [Path(run) for run in options.runs]
    own = Path(options.records or f"runs/{RECORDS}")
    try:
        if options.runs[:1] == [PUBLISH]:
            for line in publish(runs[1:], own):
                print(line)
            print("python -m nibble.report")
        elif runs:
            report(options, runs, own)
        else:
            output = Path(options.output or "RESULTS.md")
            records = Path(options.records) if options.records else RESULTS / RECORDS
            others = Path(options.benchmarks), Path(options.published)
            write_documents(records, *others, output, Path(options.readme), options.check)
    except OSError as error:
        raise UserError(f"{error.filename} cannot be written: {error.strerror}") from error


def report(options: ReportOptions, runs: list[Path], records: Path) -> None:
    """Write the page of some runs, or their table, from their evaluations in `records`."""
    comparison, notes = gather(runs, records, options.part)
    for note in notes:
        print(note, file=sys.stderr)
    format_ = options.format or Format.html
    if format_ is not Format.html:
        text = written(comparison, format_)
        if options.output is None:
            print(text, end="")
            return
    else:
        others = published.read(Path(options.published))
        text = render(comparison, collect(comparison, options.utterances), notes, others)
        Console().print(table(comparison))
    output = Path(options.output) if options.output else _common(runs) / "report.html"
    write_text(output, text)
    print(f"{output}: {output.stat().st_size:,} bytes")


def _common(paths: list[Path]) -> Path:
    """The folder that all paths are in, or are."""
    return Path(os.path.commonpath([path.resolve() for path in paths]))


def run() -> None:
    """Run the command line."""
    stopping.run(main)
