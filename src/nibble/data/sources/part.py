"""Reads a part: the cuts of its good utterances, with every problem counted and named."""

import hashlib
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from nibble.data.audio import file_of
from nibble.data.cuts import Cuts
from nibble.data.options import TextCase
from nibble.data.sources import kept
from nibble.data.sources.checking import Checker
from nibble.data.sources.kept import Kept, Tally, Utterance
from nibble.data.sources.source import Source
from nibble.errors import UserError, printable

FORMAT = "3"  # of what is kept about a part
SHOWN = 5  # names in a message before it says how many more

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Reading:
    """How a part is read."""

    max_bad_utterances: int = 0  # how many utterances of the part may be left out
    channel: str = "mix"  # of audio with several: `data.channel`
    text_case: TextCase = TextCase.keep


def read_part(source: Source, cache_dir: Path, reading: Reading | None = None) -> Cuts:
    """The good utterances of one part, in the order of the source, each 16 kHz and mono.

    Utterances without audio, text or readable samples are left out, counted and named. Audio at another rate or with
    several channels is converted once into `cache_dir`. Later calls read what the first one found, until a file of the
    part changes its name, size or time.

    Args:
        source: the part.
        cache_dir: for what was found and for converted audio.
        reading: how it is read.

    Raises:
        UserError: nothing to read, or more left out than allowed.
        OSError: the cache cannot be written.
    """
    reading = reading or Reading()
    found, converted = check_part(source, cache_dir, reading.channel)
    report(source.path, found, reading.max_bad_utterances)
    return found.cuts(source.root, converted, reading.text_case)


def check_part(source: Source, cache_dir: Path, channel: str = "mix") -> tuple[Kept, Path]:
    """The result of checking a part, now or earlier, and the folder of converted audio."""
    title = source.path.name
    names = set()
    digest = hashlib.sha256(os.fsencode(f"{FORMAT} {type(source).__name__} {source.path.resolve()} {channel}"))
    for path in source.files():
        status = path.stat() if path.exists() else path.lstat()  # a link to nowhere is named when it is checked
        name = os.path.relpath(path, source.root)
        digest.update(os.fsencode(f"{name} {status.st_size} {status.st_mtime_ns}\n"))
        if source.lists_audio():
            names.add(name)
    stem = f"{title}-{digest.hexdigest()[:16]}"
    file, converted = cache_dir / f"{stem}.jsonl", cache_dir / f"{stem}-converted"

    def there(utterance: Utterance) -> bool:
        if utterance.converted:
            return (converted / file_of(utterance.audio)).is_file()
        if source.lists_audio():
            return file_of(utterance.audio) in names
        audio.add(os.path.join(source.root, file_of(utterance.audio)))
        return True

    if file.is_file():
        audio = _Fingerprint()
        try:
            return kept.read(file, title, there, audio.digest), converted
        except (UserError, OSError) as error:
            log.warning("%s is not whole (%s); the part is checked again", printable(file), printable(error))
    audio = _Fingerprint()
    checker = Checker(source, converted, channel)

    def utterances() -> Iterator[Utterance]:
        for utterance in checker.utterances():
            there(utterance)
            yield utterance

    kept.write(file, utterances(), checker.found, audio.digest)
    audio = _Fingerprint()
    return kept.read(file, title, there, audio.digest), converted


class _Fingerprint:
    """Sizes and times of change of audio files, for a file that is named several times in a row once."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()
        self._last = ""

    def add(self, path: str) -> None:
        if path == self._last:
            return
        self._last = path
        try:
            status = os.stat(path)
            self._digest.update(f"{status.st_size} {status.st_mtime_ns}\n".encode())
        except OSError:
            self._digest.update(b"not there\n")

    def digest(self) -> str:
        return self._digest.hexdigest()[:16]


def report(path: Path, found: Kept, max_bad_utterances: int) -> None:
    """Say what is unusual and what was left out, or stop.

    Raises:
        UserError: more was left out than allowed, or nothing is left.
    """
    where, problems = printable(path), found.found.problems
    for kind, tally in found.found.notes.items():
        log.warning("%s: %d utterances %s: %s", where, tally.count, kind, some({"": tally}))
    bad = sum(tally.count for tally in problems.values())
    if bad > max_bad_utterances:
        raise UserError(
            f"{where}: {bad} utterances can't be used{_kinds(problems)}, which is more than "
            f"data.max_bad_utterances={max_bad_utterances}: {some(problems)}. Repair them, or leave them out with "
            f"data.max_bad_utterances={bad}"
        )
    if problems:
        log.warning("%s: %d utterances left out%s: %s", where, bad, _kinds(problems), some(problems))
    if not len(found):
        raise UserError(f"no utterance of {where} can be used; {some(problems)}")


def _kinds(problems: dict[str, Tally]) -> str:
    """How many of each kind, if there are several."""
    counts = [f"{tally.count} {kind}" for kind, tally in problems.items()]
    return f" ({', '.join(counts)})" if len(counts) > 1 else ""


def some(found: dict[str, Tally]) -> str:
    """The first few findings as "id: kind (detail)", and the number of others."""
    shown = [f"{_short(id_)}: {_why(kind, detail)}" for kind, tally in found.items() for id_, detail in tally.examples][
        :SHOWN
    ]
    more = sum(tally.count for tally in found.values()) - len(shown)
    return "; ".join([*shown, f"and {more} more"] if more else shown)


def _why(kind: str, detail: str) -> str:
    return f"{kind} ({detail})" if kind and detail else kind or detail


def _short(text: str, most: int = 60) -> str:
    return text if len(text) <= most else f"{text[:most]}…"
