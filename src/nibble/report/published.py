"""Results that others published, from results/published.jsonl: a section of RESULTS.md, and points on the page."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nibble.plain import build_lines
from nibble.report.tables import markdown

_COLUMNS = ("system", "weights", "speech", "errors", "size", "source")
_TITLE = """\
## Published by others, not measured here

As their abstracts and model cards say, each with its own way to count bytes; pairs are LibriSpeech test-clean / \
test-other. **C**: a transducer trained on LibriSpeech alone, so its rates compare with ours on these parts. Of the \
others, with other training data or text, only what low precision cost them compares.
"""


@dataclass(frozen=True)
class Published:
    """A result as its source states it."""

    system: str
    weights: str
    speech: str
    errors: str
    size: str
    source: str
    comparable: bool  # a transducer trained on LibriSpeech alone
    rates: dict[str, float] = field(default_factory=dict)  # part of LibriSpeech -> WER in percent at these weights
    size_bytes: int | None = None


def read(path: Path) -> list[Published]:
    """All results of a file, in its order; none if there is no file.

    Raises:
        UserError: a line is not such a result; the text gives the line.
    """
    return build_lines(Published, path, "a published result", "mend that line")


def render(published: list[Published]) -> str:
    """A section of RESULTS.md; empty without results."""
    if not published:
        return ""
    rows = [["C" if one.comparable else "", *(getattr(one, name) for name in _COLUMNS)] for one in published]
    return f"{_TITLE}\n{markdown(['', *_COLUMNS], rows, left=len(_COLUMNS) + 1)}"


def points(published: Sequence[Published], corpus: str, part: str) -> list[dict[str, str | float]]:
    """What a chart of errors against bytes can show beside our systems; nothing if our speech is not LibriSpeech's."""
    if corpus.lower() != "librispeech":
        return []
    return [
        {"system": f"{one.system}, {one.weights}", "bytes": one.size_bytes, "wer": one.rates[part]}
        for one in published
        if part in one.rates and one.size_bytes is not None
    ]
