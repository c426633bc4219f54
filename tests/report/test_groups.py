"""Error rates of groups of utterances in RESULTS.md."""

from dataclasses import replace

from test_results import FLOAT, INT4

from nibble.report.groups import groups
from nibble.report.results import render
from nibble.report.tables import systems

SPEECH = [("s1-1-1", 0, 2), ("s1-1-2", 1, 6), ("s2-1-1", 0, 2), ("s2-1-2", 3, 5)]
HALF = [("s1-1-1", 1, 2), ("s1-1-2", 1, 6), ("s2-1-1", 0, 2), ("s2-1-2", 3, 5)]
RECORDS = [
    *(replace(FLOAT, seed=seed, utterance_errors=SPEECH, text_hashes=["a", "b", "c", "d"]) for seed in (1, 2)),
    *(replace(INT4, seed=seed, utterance_errors=SPEECH if seed == 1 else HALF) for seed in (1, 2)),
]


def cells(text: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]


def test_by_words_and_by_speaker_with_the_paired_difference() -> None:
    found = {row[0]: row[1:] for row in cells(groups(systems(RECORDS)))}
    assert found["words said"] == ["utterances", "words", "float", "int4", "int4 minus float, points, 95 %"]
    assert found["1–2"][:3] == ["2", "4", "0.00"]
    assert found["1–2"][3] == "12.50", "pooled over both seeds"
    assert found["1–2"][4].startswith("+12.50 (")
    assert found["5–6"][:2] == ["2", "11"]
    assert found["5–6"][4] == "+0.00 (+0.00 … +0.00)"
    assert found["s2"][:2] == ["2", "7"]
    assert found["s2"][2] == "42.86"
    assert groups(systems(RECORDS)) in render(RECORDS)


def test_what_would_say_little_has_no_table() -> None:
    assert groups(systems(RECORDS[::2])) == "", "one seed"
    assert groups(systems(RECORDS[:2])) == "", "float alone"
    assert "speaker" not in groups(systems([replace(one, utterance_errors=_named(one, "u")) for one in RECORDS]))
    many = [(f"s{number}-1-1", 0, number % 2 + 2) for number in range(40)]
    found = groups(systems([replace(one, utterance_errors=many, text_hashes=[]) for one in RECORDS]))
    assert "words said" in found
    assert "speaker" not in found, "too many to read"


def _named(record, prefix: str) -> list[tuple[str, int, int]]:
    """Utterances whose ids don't say who speaks."""
    return [(f"{prefix}{number}", *one[1:]) for number, one in enumerate(record.utterance_errors)]
