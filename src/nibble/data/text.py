"""Normalises transcripts: one spelling of each character, single spaces, and a choice of case."""

import unicodedata

from nibble.data.options import TextCase


def normalised(text: str) -> str:
    """`text` in Unicode's composed form (NFC), with single spaces and no byte order marks.

    "é" may be written as one character or as "e" and an accent; a model would learn the two as different labels.
    """
    return " ".join(unicodedata.normalize("NFC", text.replace("\ufeff", "")).split())


def in_case(text: str, case: TextCase) -> str:
    """`text` as `data.text_case` wants it."""
    if case is TextCase.keep:
        return text
    return normalised(text.upper() if case is TextCase.upper else text.lower())


def is_unicode(text: str) -> bool:
    """Whether a text read by `nibble.data.sources.lines` was UTF-8; each byte that wasn't is half of a character."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
