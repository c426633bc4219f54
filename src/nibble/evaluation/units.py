"""The units of errors: words, or characters for scripts without spaces between words."""

import re
import unicodedata
from collections.abc import Iterable
from enum import StrEnum

from nibble.evaluation.options import Ignored

# Han with its extensions, kana, Thai, Lao, Tibetan, Myanmar and Khmer.
_WITHOUT_SPACES = re.compile(
    "[\u0e00-\u0eff\u0f00-\u0fff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\U00020000-\U0003ffff]"
)
_ENOUGH = 100_000  # characters that are examined


class Units(StrEnum):
    """The units that errors are counted in."""

    words = "words"
    characters = "characters"

    @property
    def rate(self) -> str:
        """The name of the error rate."""
        return "WER" if self is Units.words else "CER"

    def units_in(self, text: str) -> list[str]:
        """The units of a text, without spaces."""
        return text.split() if self is Units.words else [sign for sign in text if not sign.isspace()]


def units_of(references: Iterable[str]) -> Units:
    """Characters, if more than half of the letters are of scripts without spaces between words; else words."""
    letters = dense = 0
    for text in references:
        letters += sum(sign.isalpha() for sign in text)
        dense += len(_WITHOUT_SPACES.findall(text))
        if letters > _ENOUGH:
            break
    return Units.characters if 2 * dense > letters else Units.words


def scored(text: str, ignored: Iterable[Ignored]) -> str:
    """`text` without what scoring ignores; an apostrophe within a word counts as a letter."""
    if Ignored.case in ignored:
        text = text.casefold()
    if Ignored.punctuation in ignored:
        text = re.sub(r"(?<=\w)['’](?=\w)", "\0", text)
        kept = (" " if unicodedata.category(sign)[0] in "PS" else sign for sign in text)
        text = "".join(kept).replace("\0", "'")
    return " ".join(text.split())
