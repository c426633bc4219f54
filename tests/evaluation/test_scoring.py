"""Errors in words and characters, what scoring ignores, and groups of utterances."""

import numpy as np
import pytest
from lhotse import MonoCut, SupervisionSegment

from nibble.errors import UserError
from nibble.evaluation.groups import grouped
from nibble.evaluation.options import Ignored
from nibble.evaluation.result import Transcript
from nibble.evaluation.scoring import score_transcripts, shown
from nibble.evaluation.units import Units, scored, units_of
from nibble.evaluation.wer import interval, score


@pytest.mark.parametrize(
    ("texts", "units"),
    [
        (["the cat", "sat"], Units.words),
        (["今天天气很好", "我们去公园"], Units.characters),
        (["きょうは とても さむい"], Units.characters),
        (["วันนี้อากาศดี"], Units.characters),
        (["안녕하세요 여러분"], Units.words),  # Korean puts spaces between words
        (["Ich heiße 李"], Units.words),
        (["12 34", ""], Units.words),
        ([], Units.words),
    ],
)
def test_units_are_chosen_by_the_script(texts: list[str], units: Units) -> None:
    assert units_of(texts) is units


def test_characters_take_the_place_of_words_in_scripts_without_spaces() -> None:
    found = score_transcripts([Transcript("a", "今天 天气很好", "今天天汽很"), Transcript("b", "好", "好")])
    assert (found.units, found.substitutions, found.deletions, found.insertions) == (Units.characters, 1, 1, 0)
    assert found.reference_words == 7
    assert found.wer == pytest.approx(2 / 7)
    assert shown(Transcript("a", "今天 天气", "今天"), [], found.units) == ("a", "今 天 天 气", "今 天")


def test_what_scoring_ignores() -> None:
    text = "“Don't!” said St. Mary’s — über-COOL"
    assert scored(text, []) == text
    assert scored(text, [Ignored.case]) == "“don't!” said st. mary’s — über-cool"
    assert scored(text, [Ignored.punctuation]) == "Don't said St Mary's über COOL"
    transcripts = [Transcript("a", "Guten Tag!", "guten tag")]
    assert score_transcripts(transcripts).wer == 1
    assert score_transcripts(transcripts, ["case"]).wer == 0.5
    assert score_transcripts(transcripts, ["case", "punctuation"]).wer == 0


def cut(name: str, duration_s: float, speaker: str, **custom: str) -> MonoCut:
    said = SupervisionSegment(name, name, 0.0, duration_s, speaker=speaker, custom=custom or None)
    return MonoCut(name, 0.0, duration_s, 0, supervisions=[said])


def test_groups_by_length_and_by_what_the_corpus_says() -> None:
    cuts = [cut("a", 1.0, "s2", accent="north"), cut("b", 7.5, "s1"), cut("c", 7.9, "s1"), cut("d", 99.0, "s1")]
    found = score(["a", "b", "d"], ["one two", "three", "four"], ["one", "three four", "five"])
    groups = grouped(found.edits, cuts, ["length", "speaker", "accent"])
    assert [group.name for group in groups["length"]] == ["0–2 s", "5–10 s", "≥ 20 s"]
    assert [(g.name, g.utterances, g.units, g.errors) for g in groups["speaker"]] == [("s1", 2, 2, 2), ("s2", 1, 2, 1)]
    first = groups["speaker"][0]
    assert (first.substitutions, first.deletions, first.insertions) == (1, 0, 1)
    np.testing.assert_allclose(first.ci95, interval([[("b", 1, 1), ("d", 1, 1)]])[1:])
    assert [group.name for group in groups["accent"]] == ["(not said)", "north"]
    with pytest.raises(UserError, match=r"by=room: the corpus doesn't say that; it has accent, length, speaker"):
        grouped(found.edits, cuts, ["room"])
