"""Bundles and exports in RESULTS.md: the utterances whose text is not that of the checkpoint; records of older code."""

from dataclasses import replace

from test_results import FLOAT, INT4

from nibble.report.precisions import summary
from nibble.report.results import render
from nibble.report.tables import OLDER, OLDER_EXPLAINED, checkpoint_of, systems

HEARD = replace(INT4, text_hashes=["aa", "bb"])
SHERPA = replace(HEARD, backend="sherpa 2.0.1 w4a8 greedy", bundle_bytes=900, text_hashes=["aa", "cc"])
BUNDLE = replace(HEARD, backend="bundle native greedy")


def cells(page: str, engine: str) -> list[str]:
    (line,) = (line for line in page.splitlines() if f"| {engine} |" in line)
    return [cell.strip() for cell in line.split("|")[1:-1]]


def test_flips_are_utterances_whose_text_is_another() -> None:
    again = [replace(one, seed=2, text_hashes=["dd", "ee"]) for one in (HEARD, SHERPA, BUNDLE)]
    page = render([FLOAT, HEARD, SHERPA, BUNDLE, *again])
    name, _, seeds, _, flips, *_ = cells(page, "sherpa 2.0.1 w4a8")
    assert (name, seeds, flips) == ("int4, trained", "2", "1")
    assert cells(page, "bundle native")[4] == "0"
    assert page.count("int4, trained") == 3, "one checkpoint, two ways to deploy it"


def test_without_texts_nothing_is_said_of_flips() -> None:
    page = render([FLOAT, INT4, replace(SHERPA, text_hashes=[])])
    assert "| flips |" not in page
    (checkpoint, export) = (system for system in sorted(systems([INT4, SHERPA]), key=lambda one: one.last.bundle_bytes))
    assert export.flips(checkpoint) is None
    assert checkpoint_of(export, [checkpoint, export]) is checkpoint
    assert checkpoint_of(checkpoint, [checkpoint, export]) is None


def test_hashes_that_are_not_one_for_each_utterance_say_nothing() -> None:
    checkpoint, export = systems([HEARD])[0], systems([replace(SHERPA, text_hashes=["aa"])])[0]
    assert export.flips(checkpoint) is None
    assert checkpoint.flips(export) is None


def test_the_readme_shows_the_checkpoint_and_not_its_bundle() -> None:
    wrong = replace(BUNDLE, utterance_errors=[("a", 2, 2), ("b", 2, 2)])
    assert "100.00" not in summary([FLOAT, INT4, wrong])


def test_what_older_code_measured_is_marked() -> None:
    assert OLDER not in summary([FLOAT, INT4])
    older = summary([FLOAT, replace(INT4, revision=0)])
    assert f"| int4 {OLDER} |" in older
    assert "| float |" in older
    assert older.endswith(f"{OLDER_EXPLAINED}\n")
    assert f"int4, trained {OLDER}" in render([FLOAT, replace(INT4, revision=0)])
