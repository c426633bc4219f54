"""The result of evaluating one model: its record, and what is only printed."""

from dataclasses import dataclass
from typing import NamedTuple

from nibble.evaluation.size import Size
from nibble.hardware import HardwareConfig
from nibble.runs.records import Record


class Transcript(NamedTuple):
    """What was said and what was recognised."""

    id: str
    reference: str
    hypothesis: str


class Misheard(NamedTuple):
    """An utterance with errors."""

    transcript: Transcript
    errors: int
    words: int  # of the reference


@dataclass
class Result:
    """What evaluating one model gives."""

    record: Record
    transcripts: list[Transcript]
    size: Size
    hardware: HardwareConfig  # its budget is printed beside the measurement

    def worst(self, count: int) -> list[Misheard]:
        """At most `count` utterances with errors, most errors first."""
        texts = {transcript.id: transcript for transcript in self.transcripts}
        ranked = sorted(self.record.utterance_errors, key=lambda utterance: (-utterance[1], utterance[0]))
        return [Misheard(texts[id_], errors, words) for id_, errors, words in ranked if errors][:count]
