"""Lhotse's own files: cuts, or supervisions with their recordings (`*.jsonl.gz` or `*.jsonl`).

Only these fields of a cut are read: which file, from when to when, which channel, and its supervisions. Nothing in it
is loaded, run or fetched (`lhotse_cuts`). Each supervision is an utterance.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nibble.data.sources.json_rows import json_rows
from nibble.data.sources.lhotse_cuts import labels
from nibble.data.sources.source import Claim, Problem
from nibble.errors import UserError

NOT_READ = "a cut that is not read"
_NOT_A_FILE = "audio that is not a file"


class LhotseCuts:
    """A file of cuts."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.root = path.parent

    def lists_audio(self) -> bool:
        """Audio lies anywhere."""
        return False

    def files(self) -> Iterator[Path]:
        """The file."""
        yield self.path

    def claims(self) -> Iterator[Claim | Problem]:
        """The supervisions of each cut."""
        for place, cut in json_rows(self.path):
            if isinstance(cut, Problem):
                yield cut
                continue
            place = str(cut.get("id", place))
            try:
                if cut.get("type") not in ("MonoCut", "MultiCut"):
                    raise UserError(
                        f"it is a {cut.get('type')!r:.40}, and has no recording of its own; save its audio first"
                    )
                recording = _dictionary(cut.get("recording"), "recording")
                sentences = cut.get("supervisions")
                if not isinstance(sentences, list) or not sentences:
                    yield Problem(place, "audio without transcript", "the cut has no supervisions")
                    continue
                start_s, duration_s = _time(cut, "start"), _time(cut, "duration")
                for sentence in sentences:
                    yield _claim(_dictionary(sentence, "a supervision"), recording, start_s, duration_s)
            except UserError as error:
                yield Problem(place, NOT_READ, str(error))


class LhotseSupervisions:
    """A file of supervisions, and the file of their recordings.

    Args:
        path: of the supervisions.
        recordings: of the recordings.
    """

    def __init__(self, path: Path, recordings: Path) -> None:
        self.path = path
        self.root = path.parent
        self.recordings = recordings

    def lists_audio(self) -> bool:
        """Audio lies anywhere."""
        return False

    def files(self) -> Iterator[Path]:
        """Both files."""
        yield self.path
        yield self.recordings

    def claims(self) -> Iterator[Claim | Problem]:
        """The supervisions in their order; the recordings are held in memory."""
        recordings: dict[str, dict[str, Any]] = {}
        for _, recording in json_rows(self.recordings):
            if isinstance(recording, Problem):
                yield recording
            else:
                recordings[str(recording.get("id"))] = recording
        for place, sentence in json_rows(self.path):
            if isinstance(sentence, Problem):
                yield sentence
                continue
            place = str(sentence.get("id", place))
            try:
                named = str(sentence.get("recording_id"))
                if named not in recordings:
                    yield Problem(place, "supervision of a recording that is not there", named)
                    continue
                yield _claim(sentence, recordings[named], 0.0, None)
            except UserError as error:
                yield Problem(place, NOT_READ, str(error))


def recordings_beside(supervisions: Path) -> Path:
    """The file of recordings of a file of supervisions, as Lhotse names them.

    Raises:
        UserError: there is none.
    """
    name = re.sub("supervisions", "recordings", supervisions.name)
    path = supervisions.with_name(name)
    if name == supervisions.name or not path.is_file():
        raise UserError(f"{supervisions} has supervisions, and there is no {name} with their recordings beside it")
    return path


def _claim(
    sentence: dict[str, Any], recording: dict[str, Any], start_s: float, within_s: float | None
) -> Claim | Problem:
    """A supervision of a cut that begins at `start_s` of a recording and lasts `within_s`."""
    id_ = sentence.get("id")
    if not isinstance(id_, str):
        raise UserError(f"the id of a supervision is {id_!r:.40}")
    text = sentence.get("text")
    if not isinstance(text, str):
        return Problem(id_, "audio without transcript", "the supervision has no text")
    if recording.get("transforms"):
        return Problem(id_, "audio that transforms change", "save it first: cuts.save_audios(FOLDER)")
    sources = recording.get("sources")
    if not isinstance(sources, list) or len(sources) != 1:
        return Problem(id_, _NOT_A_FILE, "give recordings of one source")
    source = _dictionary(sources[0], "a source")
    file = source.get("source")
    if source.get("type") not in ("file", "url") or not isinstance(file, str):
        return Problem(id_, _NOT_A_FILE, f"type {source.get('type')!r:.40}; nothing is run: save it first")
    channel = sentence.get("channel")
    channel = channel[0] if isinstance(channel, list) and len(channel) == 1 else channel
    several = isinstance(source.get("channels"), list) and len(source["channels"]) > 1
    channel = channel if several and type(channel) is int and 0 <= channel < 1_000 else None
    first_s, duration_s = _time(sentence, "start", least=-1e7), _time(sentence, "duration")
    if within_s is not None and (first_s < -0.1 or first_s + duration_s > within_s + 0.5):
        return Problem(
            id_, "supervision that reaches out of its cut", f"{first_s:g} s and {duration_s:g} s of {within_s:g} s"
        )
    return Claim(id_, text, file, max(0.0, start_s + first_s), duration_s, channel, labels(sentence))


def _dictionary(value: object, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise UserError(f"{what} is {value!r:.40}, not a dictionary of fields")
    return value


def _time(values: dict[str, Any], name: str, least: float = 0.0) -> float:
    value = values.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value < 1e7:
        raise UserError(f"{name} is {value!r:.40}, not a time in seconds")
    return float(value)
