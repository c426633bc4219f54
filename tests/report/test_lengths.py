"""The table of joined utterances, and what keeps their records out of other tables."""

from dataclasses import replace

from test_results import FLOAT, INT4

from nibble.report.documents import _headlines
from nibble.report.results import render

LONG = [
    replace(one, corpus="digits-long", part=part, deletions=deleted, utterance_errors=[("s-20-0000", errors, 4)])
    for one, counts in ((FLOAT, ((1, 0), (2, 1))), (INT4, ((1, 1), (4, 3))))
    for part, (errors, deleted) in zip(("test-20s", "test-60s"), counts, strict=True)
]


def test_rates_by_length_with_deletions_apart() -> None:
    page = render([FLOAT, INT4, *LONG])
    assert "digits: test-20s" not in page
    section = page.partition("## Long utterances: digits, digits-long")[2]
    lines = {line.split(" | ")[0].strip("| "): line for line in section.splitlines() if line.startswith("|")}
    assert lines["quant"] == "| quant | as they are | 20 s | 60 s | minus float at 60 s, points, 95 % |"
    assert lines["float"] == "| float | 25.00 (0.00) | 25.00 (0.00) | 50.00 (25.00) |  |"
    assert lines["int4, trained"].startswith("| int4, trained | 50.00 (0.00) | 25.00 (25.00) | 100.00 (75.00) | +50.00")


def test_the_readme_has_none_of_them() -> None:
    seeds = [replace(one, seed=seed) for one in (FLOAT, INT4, *LONG) for seed in (1, 2)]
    assert {record.corpus for record in _headlines(seeds)} == {"digits"}
