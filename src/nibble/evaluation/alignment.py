"""Aligns reference and hypothesis word by word, and prints them in colours."""

from enum import StrEnum
from typing import NamedTuple

import kaldialign
from rich.text import Text

from nibble.errors import printable

_STAR = "*"
_GAP = " "  # no word contains a space


class Kind(StrEnum):
    """The kind of a word's error, or none."""

    same = "same"
    substituted = "substituted"
    deleted = "deleted"
    inserted = "inserted"


class Pair(NamedTuple):
    """A word of the reference and what was recognised in its place; empty where there is nothing."""

    reference: str
    hypothesis: str

    @property
    def kind(self) -> Kind:
        """The kind of the word's error, or none."""
        if self.reference == self.hypothesis:
            return Kind.same
        if not self.reference:
            return Kind.inserted
        return Kind.substituted if self.hypothesis else Kind.deleted


_STYLES = {Kind.same: "", Kind.substituted: "bold yellow", Kind.deleted: "bold red", Kind.inserted: "bold blue"}


def align(reference: str, hypothesis: str) -> list[Pair]:
    """Align the words of both with as few edits as possible."""
    found = kaldialign.align(reference.split(), hypothesis.split(), _GAP)
    return [Pair(*("" if word == _GAP else word for word in words)) for words in found]


def aligned(reference: str, hypothesis: str, width: int = 80) -> Text:
    """Pairs of lines under each other: yellow is substituted, red deleted, blue inserted; a gap shows as stars.

    Stars keep the alignment readable where colours are not shown.

    Args:
        reference: what was said.
        hypothesis: what was recognised.
        width: columns; a pair of lines that would be longer goes on in the next pair, unless it is one long word.
    """
    lines: list[Text] = []
    top, bottom = Text("ref "), Text("hyp ")
    for pair in align(printable(reference), printable(hypothesis)):
        columns = max(map(len, pair))
        if len(top) > len("ref ") and len(top) + columns > width:
            lines += [top, bottom]
            top, bottom = Text("ref "), Text("hyp ")
        for line, word in zip((top, bottom), pair, strict=True):
            line.append((word.ljust(columns) if word else _STAR * columns) + " ", style=_STYLES[pair.kind])
    return Text("\n").join([*lines, top, bottom])
