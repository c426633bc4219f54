"""Text <-> label ids, with SentencePiece (Kudo and Richardson, 2018).

Id 0 is the transducer's blank. One id (1 in tokenizers that are learnt here) stands for characters that training never
saw. U+2581 begins each piece that begins a word; `decode` turns it into a space.
"""

import hashlib
import io
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import sentencepiece

from nibble.conventions import BLANK, WORD_START
from nibble.data.options import Tokens
from nibble.errors import UserError
from nibble.writing import whole_file

UNKNOWN = 1
_BYTES = re.compile("(?:<0x[0-9A-F]{2}>)+")  # as SentencePiece writes bytes
REPLACEMENT = "\ufffd"  # stands for bytes that are no character, or not yet
_COVERAGE = 0.9995  # of the characters of the transcripts; with byte fallback the rarest are written as bytes


class Tokenizer:
    """A trained SentencePiece model.

    Raises:
        UserError: the bytes are not a SentencePiece model, a label is not text, or there are only blank and unknown.
    """

    def __init__(self, model: bytes) -> None:
        self.model = model
        try:
            self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)
            labels = len(self.pieces(range(self.size)))
        except UnicodeDecodeError as error:
            raise UserError(f"a label is not UTF-8 text: {error}") from error
        except (RuntimeError, TypeError, ValueError) as error:
            raise UserError(f"it is not a SentencePiece model: {error}") from error
        if labels <= 2:
            raise UserError(f"it has {labels} labels, and needs more than blank and unknown")

    @property
    def has_bytes(self) -> bool:
        """Whether a character that training never saw is written as its bytes, a label each."""
        return bool(self._processor.piece_to_id("<0x00>") != UNKNOWN)

    @property
    def size(self) -> int:
        """V: labels, blank and unknown included."""
        return int(self._processor.get_piece_size())

    def encode(self, text: str) -> list[int]:
        """The label ids of `text`."""
        ids: list[int] = self._processor.encode(text)
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """The text of `ids`; blanks are dropped."""
        return self.written(self.pieces([i for i in ids if i != BLANK])).strip()

    def written(self, pieces: Iterable[str]) -> str:
        """The text of pieces, with a space where a word begins; pieces of bytes become characters."""
        text = "".join(pieces)
        if self.has_bytes:
            text = _BYTES.sub(_decoded, text)
        return text.replace(WORD_START, " ")

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """The symbol of each id."""
        return [self._processor.id_to_piece(int(i)) for i in ids]

    def vocabulary(self) -> str:
        """The contents of bpe.vocab, a line "piece<tab>score" for each label: sherpa-onnx splits hotwords with it."""
        return "".join(
            f"{self._processor.id_to_piece(i)}\t{self._processor.get_score(i):g}\n" for i in range(self.size)
        )

    def unknown(self, text: str) -> set[str]:
        """The characters of `text` that have no id."""
        found, unknown = self._processor.encode(text, out_type=str), self._processor.unk_id()
        return set("".join(piece for piece in found if self._processor.piece_to_id(piece) == unknown)) - {WORD_START}

    def files(self) -> dict[str, bytes]:
        """What tokenizer.model and tokens.txt ("symbol id" a line, as sherpa-onnx reads it) hold."""
        lines = [f"{piece} {i}\n" for i, piece in enumerate(self.pieces(range(self.size)))]
        return {"tokenizer.model": self.model, "tokens.txt": "".join(lines).encode()}

    def write(self, folder: Path) -> None:
        """Write both files into `folder`."""
        for name, content in self.files().items():
            (folder / name).write_bytes(content)

    @classmethod
    def load(cls, path: Path) -> "Tokenizer":
        """Read a tokenizer.model.

        Raises:
            UserError: the file does not exist, or is not a SentencePiece model.
        """
        if not path.is_file():
            raise UserError(f"no tokenizer at {path}")
        try:
            return cls(path.read_bytes())
        except UserError as error:
            raise UserError(f"{path} is not a tokenizer: {error}") from error


def _decoded(found: re.Match[str]) -> str:
    return bytes.fromhex(found[0].replace("<0x", "").replace(">", "")).decode(errors="replace")


def train_tokenizer(
    texts: Iterable[str], tokens: Tokens, vocabulary_size: int, cache_dir: Path, byte_fallback: bool = False
) -> Tokenizer:
    """Learn the labels from the training transcripts, once for the same texts and options.

    Args:
        texts: the training transcripts.
        tokens: characters, or byte-pair encoding (Sennrich et al., 2016).
        vocabulary_size: V for byte-pair encoding; characters take as many as there are.
        cache_dir: where trained models are kept, named by what they were trained from.
        byte_fallback: of byte-pair encoding, whether the rarest and all unseen characters are written as bytes.

    Raises:
        UserError: no text, or `vocabulary_size` doesn't suit it; the text names a size that does.
    """
    if tokens is Tokens.kept:
        raise UserError("data.tokens=kept keeps the tokenizer of a checkpoint: give init_from=RUN, or data.tokens=bpe")
    lines = [text for text in texts if text]
    if not lines:
        raise UserError("the training transcripts are empty, so there is nothing to learn labels from")
    characters = set("".join(lines).replace(" ", WORD_START)) | {WORD_START}
    if tokens == Tokens.char:
        vocabulary_size = len(characters) + 2
    how = ["byte_fallback"] if byte_fallback else []
    what = "\n".join([sentencepiece.__version__, tokens.value, str(vocabulary_size), *how, *lines])
    cached = cache_dir / f"{tokens.value}-{hashlib.sha256(what.encode()).hexdigest()[:16]}.model"
    if cached.is_file():
        return Tokenizer.load(cached)
    if vocabulary_size < len(characters) + 2 and not byte_fallback:
        raise UserError(
            f"data.vocabulary_size={vocabulary_size} is smaller than the {len(characters)} characters of the "
            f"transcripts, blank and unknown; give data.byte_fallback=true, or at least {len(characters) + 2}"
        )
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines),
            model_writer=model,
            model_type=tokens.value,
            vocab_size=vocabulary_size,
            character_coverage=_COVERAGE if byte_fallback else 1.0,
            byte_fallback=byte_fallback,
            normalization_rule_name="identity",
            max_sentence_length=1_000_000,
            pad_id=BLANK,
            pad_piece="<blk>",
            unk_id=UNKNOWN,
            bos_id=-1,
            eos_id=-1,
            minloglevel=2,
        )
    except RuntimeError as error:
        raise UserError(_too_large(vocabulary_size, str(error))) from error
    with whole_file(cached) as path:
        path.write_bytes(model.getvalue())
    return Tokenizer(model.getvalue())


def _too_large(vocabulary_size: int, error: str) -> str:
    """SentencePiece's message in the words of the option."""
    largest = re.search(r"value <= (\d+)", error)
    least = re.search(r"required_chars\. \d+ vs (\d+)", error)
    if least is not None:
        return (
            f"data.vocabulary_size={vocabulary_size} is smaller than the characters of the transcripts and 256 bytes; "
            f"give at least {least[1]}"
        )
    if largest is None:
        return f"SentencePiece can't learn data.vocabulary_size={vocabulary_size} labels: {error}"
    return (
        f"data.vocabulary_size={vocabulary_size} is more than the training transcripts support; "
        f"the most is {largest[1]}: data.vocabulary_size={largest[1]}, or data.tokens=char"
    )
