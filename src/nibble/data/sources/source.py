"""The seam `Source`: what a reader of one corpus format provides."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True)
class Claim:
    """What a corpus says about one utterance, before anything is checked."""

    id: str  # unique within the part, and the same in every run
    text: str  # as it stands in the file
    audio: str  # the file that holds it; relative paths begin at the root of the source. Or a `member` of a tar file
    start_s: float = 0.0  # where the utterance begins in the file
    duration_s: float | None = None  # None: to the end of the file
    channel: int | None = None  # counted from 0; None: as `data.channel` says
    labels: dict[str, str] = field(default_factory=dict)  # speaker, language, and any other field to group by


@dataclass(frozen=True)
class Problem:
    """Why an utterance can't be used."""

    id: str  # of the utterance, or the place of a line that has none
    kind: str  # the same words for the same fault, so that it can be counted
    detail: str = ""  # the file, the value, and what to do


class Source(Protocol):
    """One part of a corpus (training, dev or test speech) in a format that people bring.

    A source only reads what the corpus says. It opens no audio, runs nothing, and holds as little as the format allows:
    claims are read one after the other. Whatever follows is the same for all sources (`nibble.data.sources.part`):
    texts are normalised, audio is opened, cut and converted, ids are compared, and what is wrong is counted and named.

    To add a format, write a class like those beside this file, and recognise it in `recognise.py`.
    """

    path: Path  # the folder or file of the part, as messages name it
    root: Path  # where relative paths of claims begin

    def files(self) -> Iterator[Path]:
        """The files that the part is made of. The part is read again when one is added, removed, renamed or changed."""
        ...

    def lists_audio(self) -> bool:
        """Whether `files` lists all audio, below `root`; otherwise claims may name audio anywhere."""
        ...

    def claims(self) -> Iterator[Claim | Problem]:
        """Each utterance, or what is wrong with it, in an order that is the same each time.

        Raises:
            UserError: nothing of the part can be read; the text names file, line and cure.
        """
        ...
