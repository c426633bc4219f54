"""The sentences are varied, well formed, reproducible and not shared between parts."""

import hashlib

import pytest

from nibble.data.corpora import grammar


def test_every_rule_is_defined_and_used() -> None:
    named = {
        word for alternatives in grammar.GRAMMAR.values() for words in alternatives for word in words if word.islower()
    }
    assert named | {"command"} == set(grammar.GRAMMAR)


def test_parse_joins_continued_lines() -> None:
    assert grammar.parse("\na = b | X Y\n          | Z\nb = W\n") == {"a": [["b"], ["X", "Y"], ["Z"]], "b": [["W"]]}


def test_vocabulary_is_about_300_words() -> None:
    assert 280 <= len(grammar.VOCABULARY) <= 340


@pytest.mark.parametrize("part", grammar.PARTS)
def test_sentences_are_upper_case_and_short(part: str) -> None:
    for sentence in grammar.sentences(part, 500):
        assert sentence == sentence.upper()
        assert grammar.MIN_WORDS <= len(sentence.split()) <= grammar.MAX_WORDS
        assert set(sentence.split()) <= grammar.VOCABULARY


def test_parts_share_no_sentence_and_repeat_none() -> None:
    drawn = {part: grammar.sentences(part, 300 if part != "train" else 4000) for part in grammar.PARTS}
    assert all(len(set(sentences)) == len(sentences) for sentences in drawn.values())
    assert not set(drawn["train"]) & set(drawn["dev"])
    assert not set(drawn["train"]) & set(drawn["test"])
    assert not set(drawn["dev"]) & set(drawn["test"])


def test_training_soon_contains_every_word() -> None:
    words = {word for sentence in grammar.sentences("train", 200) for word in sentence.split()}
    assert words == grammar.VOCABULARY


def test_more_sentences_extend_fewer() -> None:
    assert grammar.sentences("train", 300)[:200] == grammar.sentences("train", 200)


def test_sentences_never_change() -> None:
    """On every Python version the same text, else no two figures could be compared."""
    text = "\n".join(grammar.sentences("train", 1000) + grammar.sentences("dev", 300) + grammar.sentences("test", 300))
    assert (
        hashlib.sha256(text.encode()).hexdigest() == "6202f0e9007929768b9e64948ba90d7cb4ec252274ec99945dcfa13cd18b377e"
    )


def test_unknown_part_is_refused() -> None:
    with pytest.raises(ValueError, match="no part 'valid'; there are train, dev, test"):
        grammar.sentences("valid", 1)
