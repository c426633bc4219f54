"""SentencePiece models of other toolkits, with blank as label 0."""

from collections.abc import Sequence

from google.protobuf.message import DecodeError
from sentencepiece import sentencepiece_model_pb2 as proto

from nibble.conventions import BLANK
from nibble.data.tokenizer import Tokenizer
from nibble.errors import UserError

BLANK_PIECE = "<blk>"
_Piece = proto.ModelProto.SentencePiece


def with_blank_first(model: bytes, where: str) -> Tokenizer:
    """A SentencePiece model with a piece for blank before all others, so every id grows by one.

    Args:
        model: the file.
        where: what messages call it.

    Raises:
        UserError: it is not a SentencePiece model, or has a piece of that name.
    """
    parsed = _parsed(model, where)
    if any(piece.piece == BLANK_PIECE for piece in parsed.pieces):
        raise UserError(f"{where} has a piece {BLANK_PIECE} already; this import expects blank outside the tokenizer")
    pieces = list(parsed.pieces)
    del parsed.pieces[:]
    parsed.pieces.add(piece=BLANK_PIECE, score=0.0, type=_Piece.CONTROL)
    parsed.pieces.extend(pieces)
    spec = parsed.trainer_spec
    spec.pad_id, spec.pad_piece, spec.unk_id = BLANK, BLANK_PIECE, spec.unk_id + 1
    for name in ("bos_id", "eos_id"):
        if (value := getattr(spec, name)) >= 0:
            setattr(spec, name, value + 1)
    spec.vocab_size = len(parsed.pieces)
    return Tokenizer(parsed.SerializeToString())


def with_blank_at_0(model: bytes, where: str) -> Tokenizer:
    """A SentencePiece model whose first piece is blank already, as icefall's.

    Raises:
        UserError: it is not a SentencePiece model, or its first piece is another.
    """
    parsed = _parsed(model, where)
    first = parsed.pieces[0].piece if parsed.pieces else "nothing"
    if first != BLANK_PIECE:
        raise UserError(f"{where} has {first} as label 0, not {BLANK_PIECE}; give the tokenizer of this model")
    return Tokenizer(model)


def of_pieces(pieces: Sequence[str], unknown: str, ranks: dict[str, int] | None = None) -> Tokenizer:
    """A byte-pair tokenizer with these pieces, blank included as label 0.

    Args:
        pieces: of labels 0, 1 and so on. Text is split by merging the pair whose joined piece has the lowest rank.
        unknown: the piece for characters that no other piece has.
        ranks: of pieces in merging; by default their place, as SentencePiece numbers what it has learnt.

    Raises:
        UserError: two pieces are equal, or `unknown` is none of them.
    """
    if unknown not in pieces:
        raise UserError(f"the vocabulary has no {unknown}")
    model = proto.ModelProto()
    for place, piece in enumerate(pieces):
        kind = _Piece.NORMAL
        if piece == unknown:
            kind = _Piece.UNKNOWN
        elif piece.startswith("<0x") and len(piece) == len("<0x00>"):
            kind = _Piece.BYTE
        elif place == BLANK or (piece.startswith("<") and piece.endswith(">")):
            kind = _Piece.CONTROL
        rank = place if ranks is None else ranks.get(piece, len(pieces))
        model.pieces.add(piece=piece, score=-float(rank), type=kind)
    spec = model.trainer_spec
    spec.model_type, spec.vocab_size = proto.TrainerSpec.BPE, len(pieces)
    spec.pad_id, spec.pad_piece, spec.unk_id, spec.unk_piece = BLANK, pieces[BLANK], pieces.index(unknown), unknown
    spec.bos_id = spec.eos_id = -1
    spec.byte_fallback = any(piece.type == _Piece.BYTE for piece in model.pieces)
    model.normalizer_spec.name = "identity"
    model.normalizer_spec.add_dummy_prefix = True
    return Tokenizer(model.SerializeToString())


def _parsed(model: bytes, where: str) -> proto.ModelProto:
    try:
        parsed = proto.ModelProto()
        parsed.ParseFromString(model)
    except DecodeError as error:
        raise UserError(f"{where} is no SentencePiece model: {error}") from error
    Tokenizer(model)  # SentencePiece itself accepts it
    return parsed
