"""Reference and hypothesis word by word, coloured for the terminal."""

import kaldialign
from rich.text import Text

_STAR = "*"


def aligned(reference: str, hypothesis: str) -> Text:
    """Two lines under each other: yellow is substituted, red deleted, blue inserted; a gap shows as stars.

    Stars keep the alignment readable where colours are not shown.
    """
    gap = " "  # no word contains a space
    pairs = kaldialign.align(reference.split(), hypothesis.split(), gap)
    top, bottom = Text("ref "), Text("hyp ")
    for spoken, recognised in pairs:
        if spoken == gap:
            style = "bold blue"
        elif recognised == gap:
            style = "bold red"
        else:
            style = "" if spoken == recognised else "bold yellow"
        width = max(len(spoken), len(recognised))
        for line, word in ((top, spoken), (bottom, recognised)):
            line.append((_STAR * width if word == gap else word.ljust(width)) + " ", style=style)
    return Text("\n").join([top, bottom])
