"""A Kaldi data folder: wav.scp and text, and optionally segments, utt2spk, utt2lang and spk2gender.

Lhotse reads such folders too, but whole into memory, and it runs the commands in them. Nothing is run here: a recording
that is a command is named, with what to do.
"""

from collections.abc import Iterator
from pathlib import Path

from nibble.data.sources.lines import numbered_lines
from nibble.data.sources.source import Claim, Problem
from nibble.errors import UserError

NAMES = ("wav.scp", "text", "segments", "utt2spk", "utt2lang", "spk2gender")


class Kaldi:
    """Files of two and more columns, joined by the ids in their first one."""

    def __init__(self, path: Path) -> None:
        self.path = self.root = path

    def lists_audio(self) -> bool:
        """Audio lies anywhere."""
        return False

    def files(self) -> Iterator[Path]:
        """The files of the folder that are read."""
        return (self.path / name for name in NAMES if (self.path / name).is_file())

    def claims(self) -> Iterator[Claim | Problem]:
        """The segments in their order; without segments, the recordings.

        Raises:
            UserError: a file that is needed is not there.
        """
        for name in ("wav.scp", "text"):
            if not (self.path / name).is_file():
                raise UserError(f"{self.path} has no {name}; a Kaldi folder has wav.scp and text")
        recordings, texts, speakers, languages, genders = (
            self._column(name) for name in ("wav.scp", "text", "utt2spk", "utt2lang", "spk2gender")
        )
        seen = set()
        for id_, recording, start_s, duration_s in self._segments(recordings):
            seen.add(id_)
            if duration_s is not None and duration_s != duration_s:
                yield Problem(id_, "a segment that is not two ids and two times", recording)
            elif recording not in recordings:
                yield Problem(id_, "segment of a recording that is not in wav.scp", recording)
            elif recordings[recording].endswith("|"):
                command = recordings[recording].rstrip("| ")
                how = f"write its output to a file and name that in wav.scp: {command} > {recording}.wav"
                yield Problem(id_, "audio by a command, which is not run", how)
            elif id_ not in texts:
                yield Problem(id_, "audio without transcript", recordings[recording])
            else:
                speaker = speakers.get(id_, "")
                labels = {"speaker": speaker, "language": languages.get(id_, ""), "gender": genders.get(speaker, "")}
                yield Claim(id_, texts[id_], recordings[recording], start_s, duration_s, None, labels)
        for id_ in texts:
            if id_ not in seen:
                yield Problem(id_, "transcript without audio")

    def _segments(self, recordings: dict[str, str]) -> Iterator[tuple[str, str, float, float | None]]:
        """(id, recording, start, duration) of each utterance; a duration that is not a number is of a broken line."""
        file = self.path / "segments"
        if not file.is_file():
            yield from ((id_, id_, 0.0, None) for id_ in recordings)
            return
        for number, line in numbered_lines(file):
            try:
                id_, recording, start, end = line.split()
                start_s, end_s = float(start), float(end)
                if not 0 <= start_s < 1e7 or not -1 <= end_s < 1e7:
                    raise ValueError
                yield id_, recording, start_s, None if end_s == -1 else end_s - start_s
            except ValueError:
                yield f"line {number} of segments", line[:60], 0.0, float("nan")

    def _column(self, name: str) -> dict[str, str]:
        """First column -> the rest of the line."""
        file = self.path / name
        if not file.is_file():
            return {}
        rows = (line.strip().split(maxsplit=1) for _, line in numbered_lines(file))
        return {row[0]: row[1] if len(row) > 1 else "" for row in rows}
