"""Reference and hypothesis word by word, coloured for the terminal."""

import kaldialign
from rich.text import Text

_STAR = "*"


def aligned(reference: str, hypothesis: str, width: int = 80) -> Text:
    """Pairs of lines under each other: yellow is substituted, red deleted, blue inserted; a gap shows as stars.

    Stars keep the alignment readable where colours are not shown.

    Args:
        reference: what was said.
        hypothesis: what was recognised.
        width: columns; a pair of lines that would be longer goes on in the next pair, unless it is one long word.
    """
    gap = " "  # no word contains a space
    lines: list[Text] = []
    top, bottom = Text("ref "), Text("hyp ")
    for spoken, recognised in kaldialign.align(reference.split(), hypothesis.split(), gap):
        columns = max(len(spoken), len(recognised))
        if len(top) > len("ref ") and len(top) + columns > width:
            lines += [top, bottom]
            top, bottom = Text("ref "), Text("hyp ")
        style = _style(spoken == gap, recognised == gap, spoken == recognised)
        for line, word in ((top, spoken), (bottom, recognised)):
            line.append((_STAR * columns if word == gap else word.ljust(columns)) + " ", style=style)
    return Text("\n").join([*lines, top, bottom])


def _style(inserted: bool, deleted: bool, same: bool) -> str:
    if inserted:
        return "bold blue"
    if deleted:
        return "bold red"
    return "" if same else "bold yellow"
