"""The folds of a corpus are one row, in which each speaker is tested once; a seed that lacks one is left out."""

from dataclasses import replace

from test_results import FLOAT

from nibble.report.folds import pooled
from nibble.report.results import render


def fold(number: int, seed: int = 1, wrong: int = 0):
    utterances = [(f"{number}-1-0000", wrong, 4), (f"{number}-1-0001", 0, 2)]
    return replace(
        FLOAT,
        experiment="digits_speakers",
        corpus=f"digits-fold{number}",
        part=f"test-fold{number}",
        seed=seed,
        deletions=wrong,
        substitutions=0,
        reference_words=6,
        utterance_errors=utterances,
        text_hashes=[f"{number}a", f"{number}b"],
    )


def test_folds_are_put_together() -> None:
    (one,) = pooled([fold(2, wrong=3), fold(1), fold(3)])
    assert (one.corpus, one.part, one.reference_words, one.deletions) == ("digits", "test", 18, 3)
    assert one.wer == 3 / 18
    assert [id_ for id_, _, _ in one.utterance_errors[::2]] == ["1-1-0000", "2-1-0000", "3-1-0000"]
    assert one.text_hashes == ["1a", "1b", "2a", "2b", "3a", "3b"]
    assert "## digits_speakers: test of digits\n\n18 words in 6 utterances." in render(
        pooled([fold(1), fold(2), fold(3)])
    )


def test_the_last_record_of_a_fold_counts() -> None:
    (one,) = pooled([fold(1, wrong=4), fold(2), fold(1, wrong=1)])
    assert one.deletions == 1


def test_a_seed_without_all_folds_is_left_out() -> None:
    found = pooled([fold(1), fold(2), fold(1, seed=2), FLOAT])
    assert [(one.experiment, one.seed) for one in found] == [("digits_speakers", 1), ("digits", 1)]
