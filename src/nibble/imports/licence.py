"""The licence that a model's card names."""

import re
from pathlib import Path

_MOST_BYTES = 2**20


def licence_of(folder: Path) -> str:
    """What the head of README.md says, as on the Hugging Face Hub."""
    card = folder / "README.md"
    if card.is_file():
        with card.open("rb") as file:
            text = file.read(_MOST_BYTES).decode(errors="replace")
        head = re.match(r"---\n(.*?)\n---", text, flags=re.DOTALL)
        found = re.search(r"^license:\s*([\w.\-]{1,60})\s*$", head[1], flags=re.MULTILINE) if head else None
        if found is not None:
            return f"licence: {found[1]}"
    return "licence: not stated beside the weights; see the page of that model"
