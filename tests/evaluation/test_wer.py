import math

import kaldialign
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nibble.evaluation.wer import Score, inserted, interval, paired_interval, score

TEXTS = st.lists(st.sampled_from("ABC"), max_size=6).map(" ".join)
PAIRS = st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=8)


def scored(pairs: list[tuple[str, str]]) -> Score:
    return score([f"u{i}" for i in range(len(pairs))], *zip(*pairs, strict=True))


def paired(a: list[Score], b: list[Score]) -> tuple[float, float, float]:
    """Of the runs of two systems."""
    return paired_interval(*([run.utterance_errors for run in side] for side in (a, b)))


def test_counts_each_kind_of_error() -> None:
    found = scored([("the cat sat", "the bat sat"), ("on the mat", "on mat"), ("now", "right now")])
    assert (found.substitutions, found.deletions, found.insertions, found.reference_words) == (1, 1, 1, 7)
    assert found.wer == pytest.approx(3 / 7)
    assert found.utterance_errors == [("u0", 1, 3), ("u1", 1, 3), ("u2", 1, 1)]


def test_empty_hypothesis_deletes_every_word() -> None:
    found = scored([("one two", ""), ("three", "")])
    assert (found.wer, found.deletions, found.wer_ci95) == (1.0, 3, (1.0, 1.0))


def test_without_reference_words() -> None:
    assert scored([("", "")]).wer == 0
    assert math.isinf(scored([("", "noise")]).wer)
    assert score([], [], []) == Score(0.0, 0, 0, 0, 0, (0.0, 0.0), [])


def test_an_utterance_without_words_can_still_have_errors() -> None:
    found = scored([("one two three four", "one two three four"), ("", "five")])
    assert found.wer == 0.25


@pytest.mark.parametrize("ids", [["a"], ["a", "a"]])
def test_refuses_ids_that_do_not_fit(ids: list[str]) -> None:
    with pytest.raises(ValueError, match=r"ids|twice"):
        score(ids, ["x", "y"], ["x", "y"])


@settings(max_examples=15, deadline=None)
@given(PAIRS)
def test_parts_add_up_and_the_interval_is_deterministic(pairs: list[tuple[str, str]]) -> None:
    found = scored(pairs)
    errors = sum(e for _, e, _ in found.utterance_errors)
    assert found.substitutions + found.deletions + found.insertions == errors
    assert found == scored(pairs)
    assert found.wer_ci95[0] <= found.wer_ci95[1]


def test_interval_agrees_with_kaldialign() -> None:
    references = [f"{'A ' * (1 + i % 7)}".strip() for i in range(200)]
    hypotheses = [r.replace("A", "B", 1) if i % 5 == 0 else r for i, r in enumerate(references)]
    low, high = scored(list(zip(references, hypotheses, strict=True))).wer_ci95
    theirs = kaldialign.bootstrap_wer_ci([r.split() for r in references], [h.split() for h in hypotheses])
    assert (low, high) == pytest.approx((theirs["ci95min"], theirs["ci95max"]), abs=0.003)


def test_paired_difference_of_a_system_with_itself_is_nothing() -> None:
    found = scored([("a b c", "a x c"), ("d e", "d e"), ("f", "")])
    assert paired([found], [found]) == (0.0, 0.0, 0.0)


def test_paired_difference_is_signed_and_tighter_than_two_intervals() -> None:
    pairs = [("a b c d", "a b c d" if i % 3 else "x y z d") for i in range(60)]
    worse = [(r, f"{h} z" if i % 10 == 0 else h) for i, (r, h) in enumerate(pairs)]
    a, b = scored(worse), scored(pairs)
    difference, low, high = paired([a], [b])
    assert difference == pytest.approx(a.wer - b.wer)
    assert 0 < low < difference < high
    assert high - low < a.wer_ci95[1] - a.wer_ci95[0]
    mirrored = paired([b], [a])
    assert mirrored == pytest.approx((-difference, -high, -low))


def test_seeds_are_pooled_by_utterance() -> None:
    good = scored([("a b", "a b"), ("c d", "c d"), ("e f", "e x")])
    bad = scored([("a b", "a x"), ("c d", "x x"), ("e f", "e f")])
    wer, low, high = interval([good.utterance_errors, bad.utterance_errors])
    assert wer == pytest.approx((good.wer + bad.wer) / 2)
    assert low <= wer <= high
    # One seed against two: the mean over seeds counts, not the sum.
    assert paired([good, good], [good])[0] == 0
    assert paired([good, bad], [good])[0] == pytest.approx(wer - good.wer)


def test_paired_difference_needs_the_same_utterances() -> None:
    with pytest.raises(ValueError, match="measured for one system only"):
        paired([scored([("a", "a")])], [scored([("a", "a"), ("b", "b")])])
    with pytest.raises(ValueError, match="reference of utterance u0"):
        paired([scored([("a", "a")])], [scored([("a b", "a")])])


def test_what_is_recognised_where_nothing_was_said_is_inserted() -> None:
    found = inserted(["a", "b"], ["the cat sat", "now"], ["the cat", ""])
    assert (found.substitutions, found.deletions, found.insertions) == (0, 0, 2)
    assert found.utterance_errors == [("a", 2, 3), ("b", 0, 1)]
    assert found.wer == 0.5
    with pytest.raises(ValueError, match="twice"):
        inserted(["a", "a"], ["x", "x"], ["", ""])
