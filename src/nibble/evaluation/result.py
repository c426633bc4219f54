"""One evaluated model: what is recorded, and what is only printed."""

from dataclasses import dataclass
from typing import NamedTuple

from nibble.config import HardwareConfig
from nibble.evaluation.records import Record
from nibble.evaluation.size import Size


class Transcript(NamedTuple):
    """What was said and what was recognised."""

    id: str
    reference: str
    hypothesis: str


@dataclass
class Result:
    """What evaluating one model gives."""

    record: Record
    transcripts: list[Transcript]
    size: Size
    hardware: HardwareConfig  # its budget is printed beside the measurement
    peak_bytes: int  # memory of the whole process at its most
