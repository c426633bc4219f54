"""A JSON-lines manifest, as NeMo, icefall's helpers and many scripts write it.

{"audio_filepath": "clips/1.wav", "text": "guten Tag", "duration": 1.5, "offset": 0.0}     one utterance a line

Paths begin at the folder of the manifest unless they are absolute. Fields with other names become labels, by which
evaluation groups utterances; `speaker` and `language` are known by their names. `data.columns=` renames fields.
"""

from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import Any

from nibble.data.sources.json_rows import json_rows
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
NO_AUDIO, NO_TEXT = "no audio file named", "no text"


class Manifest:
    """A file with a dictionary of JSON a line."""

    def __init__(self, path: Path, columns: dict[str, str] | None = None) -> None:
        self.path = path
        self.root = path.parent
        self.columns = check_columns(columns or {})

    def lists_audio(self) -> bool:
        """Audio lies anywhere."""
        return False

    def files(self) -> Iterator[Path]:
        """The manifest."""
        yield self.path

    def claims(self) -> Iterator[Claim | Problem]:
        """The lines in their order."""
        fields: dict[str, str] | None = None
        for place, row in json_rows(self.path):
            if isinstance(row, Problem):
                yield row
                continue
            if fields is None or fields["audio"] not in row or fields["text"] not in row:
                fields = find_fields(row, self.columns, f"{place} ({self.path})", needed=() if fields else NEEDED)
            yield claim_of(row, fields, place)


def check_columns(columns: dict[str, str]) -> dict[str, str]:
    """`data.columns`, if all that it renames is known.

    Raises:
        UserError: it isn't.
    """
    for name in columns:
        if name not in FIELDS:
            raise UserError(
                f"data.columns has {name!r}; it renames {', '.join(FIELDS)}; nearest: {nearest(name, FIELDS)}"
            )
    return columns


def find_fields(
    present: dict[str, Any] | list[str], columns: dict[str, str], where: str, needed: tuple[str, ...] = NEEDED
) -> dict[str, str]:
    """What an utterance is made of -> the field that has it.

    Args:
        present: the names of the fields.
        columns: those that the user has given.
        where: for messages.
        needed: without which nothing can be read.

    Raises:
        UserError: one of those isn't there.
    """
    found = {}
    for what, names in FIELDS.items():
        wanted = (columns[what],) if what in columns else names
        found[what] = next((name for name in wanted if name in present), wanted[0])
        if what in needed and found[what] not in present:
            raise UserError(
                f"{where} has no field {' or '.join(wanted)} for the {what}; it has {', '.join(map(str, present))}: "
                f"say which one it is with 'data.columns={{{what}: NAME}}'"
            )
    return found


def claim_of(row: dict[str, Any], fields: dict[str, str], place: str) -> Claim | Problem:
    """What a row says, or what is wrong with it."""
    audio, text = row.get(fields["audio"]), row.get(fields["text"])
    if not isinstance(audio, str) or not audio.strip():
        return Problem(place, NO_AUDIO)
    named = row.get(fields["id"])
    id_ = named if isinstance(named, str) and named else ""
    if not isinstance(text, str):
        return Problem(id_ or place, NO_TEXT, audio)
    times: dict[str, float | None] = {}
    for what in ("offset", "duration"):
        value = row.get(fields[what])
        try:
            times[what] = None if value is None or value == "" else float(value)
        except (TypeError, ValueError):
            return Problem(id_ or place, f"{what} that is not a number", repr(value)[:60])
        if times[what] is not None and not 0 <= times[what] < 1e7:  # type: ignore[operator]
            return Problem(id_ or place, f"{what} that is not a time", repr(value)[:60])
    start_s = times["offset"] or 0.0
    used = {fields[what] for what in FIELDS}
    labels = {
        name: str(value) for name, value in row.items() if name not in used and isinstance(value, str | int | float)
    }
    for what in ("speaker", "language"):
        if isinstance(row.get(fields[what]), str | int):
            labels[what] = str(row[fields[what]])
    return Claim(id_ or id_from(audio, start_s), text, audio.strip(), start_s, times["duration"], None, labels)


def id_from(audio: str, start_s: float) -> str:
    """The id of an utterance that has none: the path of its audio without the ending, and when it begins."""
    path = PurePath(audio.strip())
    name = path.with_suffix("").as_posix() if path.name else audio
    return f"{name}-{start_s:.3f}" if start_s else name
