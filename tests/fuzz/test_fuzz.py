"""Thousands of broken and hostile files: each is refused in words, or says what it says.

pytest tests/fuzz --fuzz-cases=2000 --fuzz-seed=7
"""

import shutil
from importlib import import_module
from pathlib import Path

import pytest
from fuzzing import Kind, Report, run

HERE = Path(__file__).parent
KINDS: list[Kind] = [kind for path in sorted(HERE.glob("kinds_*.py")) for kind in import_module(path.stem).KINDS]
KEPT = sorted(path for path in (HERE / "cases").glob("*/*") if path.is_dir())


def said(report: Report, folder: Path) -> str:
    """For a person: the first failures in full, and where their files are."""
    shown = [f"- {name}:\n{why}" for name, why in list(report.failed.items())[:5]]
    return "\n".join([f"{report}; the inputs are in {folder / 'failed'}", *shown])


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_broken_files_are_refused_or_equal(kind: Kind, tmp_path: Path, pytestconfig: pytest.Config) -> None:
    count, seed = pytestconfig.getoption("fuzz_cases") or kind.count, pytestconfig.getoption("fuzz_seed")
    report = run(kind, tmp_path, seed, count)
    print(f"{kind.name}: {report}")
    assert not report.failed, said(report, tmp_path)
    first = f"0: {next(kind.cases(seed, count))[0]}"
    assert first in report.loaded, f"what is intact was refused: {report.refused.get(first)}"
    assert len(report.loaded) + len(report.refused) == count
    assert report.refused, "nothing was broken"


@pytest.mark.parametrize("folder", KEPT, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_what_failed_once_does_not_again(folder: Path, tmp_path: Path) -> None:
    (kind,) = (kind for kind in KINDS if kind.name == folder.parent.name)

    def cases(_seed: int, _count: int):
        yield folder.name, lambda place: shutil.copytree(folder, place, dirs_exist_ok=True)

    report = run(Kind(kind.name, cases, kind.load), tmp_path, count=1)
    assert not report.failed, said(report, tmp_path)


def test_every_kept_input_is_of_a_kind() -> None:
    assert {path.parent.name for path in KEPT} <= {kind.name for kind in KINDS}
