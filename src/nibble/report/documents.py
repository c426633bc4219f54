"""RESULTS.md, BENCHMARKS.md and the tables of README.md, from the records and benchmarks of this repository."""

from collections.abc import Sequence
from pathlib import Path

from nibble.bench.records import read as read_benchmarks
from nibble.errors import UserError
from nibble.report import benchmarks, published
from nibble.report.folds import pooled
from nibble.report.lengths import is_lengthened
from nibble.report.precisions import summary
from nibble.report.results import render
from nibble.report.tables import unchanged
from nibble.runs.method import Method
from nibble.runs.records import Record, read
from nibble.writing import write_text

_HEADLINES = ("float", "int8", "int4", "int4_24", "int2")  # the others are in RESULTS.md only
_METHODS = (Method.float, Method.qat, Method.ptq)
BENCHMARKS = "BENCHMARKS.md"
BEGIN, END = "<!-- results: written by make results -->", "<!-- end of results -->"


def write_documents(
    records_file: Path, benchmarks_file: Path, published_file: Path, output: Path, readme: Path, check: bool
) -> None:
    """Write what the records say, or only compare.

    Args:
        records_file: of evaluations.
        benchmarks_file: of benchmarks, if any.
        published_file: of what others published, if any.
        output: RESULTS.md; benchmarks go to a file beside it.
        readme: gets tables between its markers, if it is there and has them.
        check: write nothing.

    Raises:
        UserError: no records, or with `check` a document that would change.
    """
    records = pooled(read(records_file))
    sections = [render(records), published.render(published.read(published_file))]
    documents = {output: "\n".join(filter(None, sections))}
    if text := benchmarks.render(read_benchmarks(benchmarks_file)):
        documents[output.with_name(BENCHMARKS)] = text
    if readme.is_file():
        documents[readme] = with_tables(readme.read_text(encoding="utf-8"), summary(_headlines(unchanged(records))))
    for path, text in documents.items():
        if not check:
            write_text(path, text)
        elif not path.is_file() or path.read_text(encoding="utf-8") != text:
            raise UserError(f"{path} is not what {records_file} and {benchmarks_file} say; make results")


def _headlines(records: Sequence[Record]) -> list[Record]:
    """The records for the README: of models that were trained with several seeds, in float as well."""
    chosen = [
        record
        for record in records
        if record.quant in _HEADLINES and record.method in _METHODS and not is_lengthened(record)
    ]
    seeds: dict[tuple[str, str], set[int]] = {}
    for record in chosen:
        if record.quant == "float":
            seeds.setdefault((record.experiment, record.model), set()).add(record.seed)
    return [record for record in chosen if len(seeds.get((record.experiment, record.model), ())) > 1]


def with_tables(readme: str, tables: str) -> str:
    """Put `tables` between the two markers of `readme`; it is unchanged without markers."""
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{tables}\n{END}{after}" if begin and end else readme
