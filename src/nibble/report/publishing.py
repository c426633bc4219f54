"""Copies records from runs/, a user's own, to results/, which this repository publishes."""

from collections.abc import Sequence
from pathlib import Path

from nibble.bench import records as bench
from nibble.errors import UserError
from nibble.report.matching import match, unmatched
from nibble.report.runs import find_runs
from nibble.runs import records
from nibble.runs.records import Record

RESULTS = Path("results")
RECORDS, BENCHMARKS = "records.jsonl", "bench.jsonl"  # below runs/, and below results/


def publish(paths: Sequence[Path], records_file: Path, results: Path = RESULTS) -> list[str]:
    """Copy measurements; those that are there already are not copied again, and of repeated ones only the last.

    Args:
        paths: run folders, folders of runs, and files of benchmarks such as runs/bench.jsonl.
        records_file: the evaluations of the runs.
        results: the folder to copy to.

    Returns:
        a sentence for each file that was added to, and one for what was left out.

    Raises:
        UserError: a path is neither, a run was not evaluated, or nothing can be written.
    """
    files = [path for path in paths if path.is_file()]
    folders = [path for path in paths if path not in files]
    said = []
    if folders:
        runs, _ = find_runs(folders)
        evaluations = records.read(records_file)
        measured = match(runs, evaluations)
        lacking = {run.name for run in runs} - {one.run.name for one in measured}
        if lacking:
            raise UserError(
                f"{records_file} has no evaluation of {', '.join(sorted(lacking))}, or a later run has the same "
                "options; leave it out, or add one: python evaluate.py checkpoint=RUN"
            )
        last = {_identity(run.name, record): record for run, record in measured}
        for record in last.values():
            records.append(results / RECORDS, record)
        said.append(f"{results / RECORDS}: {len(last)} evaluations of {len(runs)} runs")
        if others := unmatched(runs, evaluations, measured):
            said.append(
                f"left out: {len(others)} evaluations that name these runs and have other options, since the code or "
                f"the run has changed; evaluate again: {others[0].command}"
            )
    for file in files:
        measurements = bench.read(file)
        for measurement in measurements:
            bench.append(results / BENCHMARKS, measurement)
        said.append(f"{results / BENCHMARKS}: {len(measurements)} measurements of {file}")
    return said


def _identity(run: str, record: Record) -> tuple[object, ...]:
    """Equal for evaluations of one model in the same way on the same speech."""
    speech = record.corpus, record.part, record.reference_words, record.condition
    return run, record.quant, record.method, record.backend, record.bundle_bytes, speech
