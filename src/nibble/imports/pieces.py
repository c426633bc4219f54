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


def in_order(model: bytes, labels: Sequence[str], where: str) -> Tokenizer:
    """A SentencePiece model whose pieces are numbered as in a list of labels, blank first, as ESPnet keeps it.

    Text is split as before, since pieces keep their scores. Labels in angle brackets that the model does not have, such
    as blank, say nothing; its own pieces for the ends of a sentence are left out.

    Args:
        model: the file.
        labels: the piece of labels 0, 1 and so on.
        where: what messages call it.

    Raises:
        UserError: it is not a SentencePiece model, or the list does not fit it.
    """
    parsed = _parsed(model, where)
    by_name = {piece.piece: piece for piece in parsed.pieces if piece.type != _Piece.CONTROL}
    known = set(labels)
    if len(known) < len(labels):
        raise UserError(f"{where}: two labels of this model are equal")
    if missing := next((name for name in by_name if name not in known), None):
        raise UserError(f"{where} has a piece {missing} that is no label of this model; give its own tokenizer")
    if extra := next((name for name in labels if name not in by_name and not _bracketed(name)), None):
        raise UserError(f"{where} has no piece for the label {extra}; give the tokenizer of this model")
    if not labels or labels[BLANK] in by_name:
        raise UserError(f"{where} has a piece for label 0, which should be blank")
    pieces = [by_name.get(name) or _Piece(piece=name, score=0.0, type=_Piece.CONTROL) for name in labels]
    unknown = next((number for number, piece in enumerate(pieces) if piece.type == _Piece.UNKNOWN), None)
    if unknown is None:
        raise UserError(f"{where} has no piece for unknown characters")
    del parsed.pieces[:]
    parsed.pieces.extend(pieces)
    spec = parsed.trainer_spec
    spec.pad_id, spec.pad_piece, spec.unk_id, spec.unk_piece = BLANK, labels[BLANK], unknown, labels[unknown]
    spec.bos_id = spec.eos_id = -1
    spec.vocab_size = len(labels)
    return Tokenizer(parsed.SerializeToString())


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
        elif place == BLANK or _bracketed(piece):
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


def _bracketed(piece: str) -> bool:
    return piece.startswith("<") and piece.endswith(">")


def _parsed(model: bytes, where: str) -> proto.ModelProto:
    try:
        parsed = proto.ModelProto()
        parsed.ParseFromString(model)
    except DecodeError as error:
        raise UserError(f"{where} is no SentencePiece model: {error}") from error
    Tokenizer(model)  # SentencePiece itself accepts it
    return parsed
