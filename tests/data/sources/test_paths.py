"""Paths that are put together without `pathlib`, which is slow, are what `pathlib` makes of them."""

from pathlib import Path, PurePath

from hypothesis import given
from hypothesis import strategies as st

from nibble.data.sources.kept import _joined
from nibble.data.sources.manifest import id_from

NAMES = st.text("ab./", max_size=8)


@given(NAMES, NAMES)
def test_joined(folder: str, audio: str) -> None:
    assert _joined(str(Path(folder)), audio) == str(Path(folder) / audio)


@given(NAMES)
def test_id(audio: str) -> None:
    path = PurePath(audio)
    assert id_from(audio, 0.0) == (path.with_suffix("").as_posix() if path.name else audio)
