"""Builds a comparison from paths: finds runs and their records, and says which are left out."""

from collections.abc import Sequence
from pathlib import Path

from nibble.errors import UserError
from nibble.report.comparison import Comparison, compare
from nibble.report.matching import match
from nibble.report.runs import find_runs
from nibble.report.tables import unchanged
from nibble.runs.records import read


def gather(paths: Sequence[Path], records_file: Path, part: str | None) -> tuple[Comparison, list[str]]:
    """Compare the runs at or below `paths`; also returns a sentence for each kind of run that is left out.

    Raises:
        UserError: no finished run, no record of any, or measurements on several kinds of speech.
    """
    runs, unfinished = find_runs(paths)
    measured = match(runs, unchanged(read(records_file)))
    if not measured:
        raise UserError(
            f"{records_file} has no evaluation of {', '.join(run.name for run in runs[:3])}"
            f"{' …' if len(runs) > 3 else ''}; add one: python evaluate.py checkpoint={runs[0].folder}"
        )
    comparison = compare(measured, part)
    known, shown = {one.run.name for one in measured}, {run.name for run in comparison.runs}
    left_out = {
        "not finished": [str(folder) for folder in unfinished],
        f"no evaluation in {records_file}, or a later run has the same options": [
            run.name for run in runs if run.name not in known
        ],
        f"not evaluated on {comparison.speech.part}": sorted(known - shown),
    }
    return comparison, [f"Left out ({why}): {', '.join(names)}." for why, names in left_out.items() if names]
