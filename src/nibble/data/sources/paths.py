"""Tells which paths need `pathlib`, which takes too long for each of ten million."""

import re

_UNUSUAL = re.compile(r"//|(^|/)\.(/|$)|/$|^$")


def is_plain(path: str) -> bool:
    """Whether `pathlib` would write the path as it is."""
    return not _UNUSUAL.search(path)
