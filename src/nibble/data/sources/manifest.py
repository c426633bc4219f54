"""A JSON-lines manifest, as NeMo, icefall's helpers and many scripts write it.

{"audio_filepath": "clips/1.wav", "text": "guten Tag", "duration": 1.5, "offset": 0.0}     one utterance a line

Paths begin at the folder of the manifest unless they are absolute. Fields with other names become labels, by which
evaluation groups utterances; `speaker` and `language` are known by their names. `data.columns=` renames fields.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path, PurePath
from typing import Any

from nibble.data.sources.json_rows import json_rows
from nibble.data.sources.paths import is_plain
from nibble.data.sources.source import Claim, Problem
from nibble.errors import UserError, nearest

FIELDS = {  # what an utterance is made of -> the names it goes by
    "audio": ("audio_filepath", "audio", "audio_path", "path", "file", "file_name", "filename", "wav"),
    "text": ("text", "sentence", "transcript", "transcription"),
    "id": ("id", "utt_id", "utterance_id"),
    "duration": ("duration",),
    "offset": ("offset", "start"),
    "speaker": ("speaker", "speaker_id", "client_id"),
    "language": ("language", "lang", "locale"),
}
NEEDED = ("audio", "text")
_LONGEST_S = 1e7
_SHOWN = 300  # characters of the names that are there
NO_AUDIO, NO_TEXT = "no audio file named", "no text"


Names = dict[str, tuple[str, ...]]


class Rows:
    """A file with an utterance in each row, whose fields go by several names. Audio lies anywhere.

    Args:
        path: of the file.
        columns: `data.columns`: names of fields in place of the usual ones.
    """

    def __init__(self, path: Path, columns: dict[str, str] | None = None) -> None:
        self.path = path
        self.root = path.parent
        self.names = names_with(columns or {})

    def lists_audio(self) -> bool:
        """As `Source` says."""
        return False

    def files(self) -> Iterator[Path]:
        """As `Source` says."""
        yield self.path


class Manifest(Rows):
    """A dictionary of JSON in each line."""

    def claims(self) -> Iterator[Claim | Problem]:
        """The lines in their order."""
        looked = False
        for place, row in json_rows(self.path):
            if isinstance(row, Problem):
                yield row
                continue
            if not looked:  # in the first line, since there it is the format that is wrong, and not a line
                looked = True
                require(row, self.names, f"{place} ({self.path})")
            yield claim_of(row, self.names, place)


def names_with(columns: dict[str, str]) -> Names:
    """The field names to look for, with those of `data.columns` in place of the usual ones.

    Raises:
        UserError: `data.columns` renames something else.
    """
    for name in columns:
        if name not in FIELDS:
            known = ", ".join(FIELDS)
            raise UserError(f"data.columns has {name!r}; it renames {known}; nearest: {nearest(name, FIELDS)}")
    return {what: (columns[what],) if what in columns else usual for what, usual in FIELDS.items()}


def require(present: Iterable[str], names: Names, where: str) -> None:
    """Check that there are fields for audio and text.

    Args:
        present: names of fields.
        names: those that audio and text may go by.
        where: for messages.

    Raises:
        UserError: there is none; the text says how to name it.
    """
    present = list(present)
    for what in NEEDED:
        if not any(name in present for name in names[what]):
            there = ", ".join(map(str, present))
            raise UserError(
                f"{where} has no field {' or '.join(names[what])} for the {what}; it has {there[:_SHOWN]}: "
                f"say which one it is with 'data.columns=[{what}:NAME]'"
            )


def claim_of(row: dict[str, Any], names: Names, place: str) -> Claim | Problem:
    """The claim of a row, or what is wrong with it."""
    found = {what: next((name for name in several if name in row), "") for what, several in names.items()}
    audio, text, id_ = (row.get(found[what]) for what in ("audio", "text", "id"))
    if not isinstance(audio, str) or not audio.strip():
        return Problem(place, NO_AUDIO)
    audio, id_ = audio.strip(), id_ if isinstance(id_, str) else ""
    if not isinstance(text, str):
        return Problem(id_ or place, NO_TEXT, audio)
    times: dict[str, float | None] = {}
    for what in ("offset", "duration"):
        value = row.get(found[what])
        try:
            times[what] = None if value is None or value == "" else float(value)
        except (TypeError, ValueError):
            return Problem(id_ or place, f"{what} that is not a number", repr(value)[:60])
        if not 0 <= (times[what] or 0.0) < _LONGEST_S:
            return Problem(id_ or place, f"{what} that is not a time", repr(value)[:60])
    start_s = times["offset"] or 0.0
    used = set(found.values())
    others = {name: value for name, value in row.items() if name not in used}
    labels = {name: str(value) for name, value in others.items() if isinstance(value, str | int | float)}
    for what in ("speaker", "language"):
        value = row.get(found[what])
        if isinstance(value, str | int):
            labels[what] = str(value)
    return Claim(id_ or id_from(audio, start_s), text, audio, start_s, times["duration"], None, labels)


def id_from(audio: str, start_s: float) -> str:
    """The id of an utterance that has none: the path of its audio without the ending, and when it begins."""
    folder, slash, name = audio.rpartition("/")
    if name == ".." or not is_plain(audio):
        path = PurePath(audio)
        name = path.with_suffix("").as_posix() if path.name else audio
    else:  # the same, ten times as fast
        end = name.rfind(".")
        name = f"{folder}{slash}{name[:end] if 0 < end < len(name) - 1 else name}"
    return f"{name}-{start_s:.3f}" if start_s else name
