"""Labels: what they are, that text survives them, and what is said when the vocabulary doesn't suit the text."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nibble.data.options import Tokens
from nibble.data.tokenizer import Tokenizer, train_tokenizer
from nibble.errors import UserError

TEXTS = ["ONE TWO THREE", "FOUR FIVE SIX", "SEVEN EIGHT NINE", "ZERO ONE"]
WORDS = sorted({word for text in TEXTS for word in text.split()})


@pytest.fixture(scope="module", params=[(Tokens.char, 0), (Tokens.bpe, 30)], ids=["char", "bpe"])
def tokenizer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return train_tokenizer(TEXTS, *request.param, tmp_path_factory.mktemp("tokenizers"))


def test_blank_and_unknown_come_first(tokenizer: Tokenizer) -> None:
    assert tokenizer.pieces([0, 1]) == ["<blk>", "<unk>"]
    assert not {0, 1} & set(tokenizer.encode(" ".join(WORDS)))


@settings(max_examples=50, deadline=None)
@given(words=st.lists(st.sampled_from(WORDS), max_size=8))
def test_text_survives(tokenizer: Tokenizer, words: list[str]) -> None:
    text = " ".join(words)
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert tokenizer.decode([0, *ids, 0]) == text
    assert all(0 < i < tokenizer.size for i in ids)


def test_a_word_begins_with_its_mark(tokenizer: Tokenizer) -> None:
    pieces = tokenizer.pieces(tokenizer.encode("ONE TWO"))
    assert sum(piece.startswith("\u2581") for piece in pieces) == 2


def test_characters_take_as_many_labels_as_there_are(tmp_path: Path) -> None:
    characters = set("".join(TEXTS))
    assert train_tokenizer(TEXTS, Tokens.char, 5, tmp_path).size == len(characters) + 2


def test_bpe_has_the_size_asked_for(tmp_path: Path) -> None:
    assert train_tokenizer(TEXTS, Tokens.bpe, 25, tmp_path).size == 25


def test_unknown_characters_are_named(tokenizer: Tokenizer) -> None:
    assert tokenizer.unknown("ONE ÄQ, TWO") == {"Ä", "Q", ","}
    assert tokenizer.unknown("ONE TWO") == set()


def test_files_for_other_programs(tokenizer: Tokenizer, tmp_path: Path) -> None:
    tokenizer.write(tmp_path)
    lines = (tmp_path / "tokens.txt").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "<blk> 0"
    assert [line.rsplit(" ", 1)[1] for line in lines] == [str(i) for i in range(tokenizer.size)]
    again = Tokenizer.load(tmp_path / "tokenizer.model")
    assert again.model == tokenizer.model
    assert again.encode("ONE TWO") == tokenizer.encode("ONE TWO")


def test_trained_once_for_the_same_text(tmp_path: Path) -> None:
    first = train_tokenizer(TEXTS, Tokens.char, 0, tmp_path)
    (cached,) = tmp_path.glob("*.model")
    changed_ns = cached.stat().st_mtime_ns
    assert train_tokenizer(iter(TEXTS), Tokens.char, 7, tmp_path).model == first.model
    assert cached.stat().st_mtime_ns == changed_ns
    train_tokenizer([*TEXTS, "TEN"], Tokens.char, 0, tmp_path)
    assert len(list(tmp_path.glob("*.model"))) == 2


def test_vocabulary_larger_than_the_text_supports_names_the_largest(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"the most is (\d+): data.vocabulary_size=") as caught:
        train_tokenizer(TEXTS, Tokens.bpe, 1000, tmp_path)
    largest = int(str(caught.value).split("the most is ")[1].split(":")[0])
    assert train_tokenizer(TEXTS, Tokens.bpe, largest, tmp_path).size == largest


def test_vocabulary_smaller_than_the_alphabet_names_the_smallest(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"or at least (\d+)") as caught:
        train_tokenizer(TEXTS, Tokens.bpe, 4, tmp_path)
    smallest = int(str(caught.value).split("at least ")[1])
    assert train_tokenizer(TEXTS, Tokens.bpe, smallest, tmp_path).size == smallest


def test_no_text(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="transcripts are empty"):
        train_tokenizer(["", ""], Tokens.char, 0, tmp_path)


def test_not_a_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no tokenizer at"):
        Tokenizer.load(tmp_path / "absent.model")
    (tmp_path / "broken.model").write_bytes(b"\x07broken")
    with pytest.raises(UserError, match="is not a SentencePiece model"):
        Tokenizer.load(tmp_path / "broken.model")


def test_bytes_write_what_training_never_saw(tmp_path: Path) -> None:
    texts = ["grüße aus köln", "straße"]
    found = train_tokenizer(texts, Tokens.bpe, 290, tmp_path, byte_fallback=True)
    for text in (*texts, "smørrebrød 李 🎤", "a <0x41> b"):
        assert found.decode(found.encode(text)) == text
        assert not found.unknown(text)
    half = found.encode("李")[:-1]
    assert "\ufffd" in found.decode(half)
    assert found.written(found.pieces(found.encode("李 a"))) == " 李 a"
    assert not train_tokenizer(texts, Tokens.bpe, 30, tmp_path).has_bytes
    with pytest.raises(UserError, match=r"data.vocabulary_size=20 is smaller than .* 256 bytes; give at least 2\d\d"):
        train_tokenizer(texts, Tokens.bpe, 20, tmp_path, byte_fallback=True)
