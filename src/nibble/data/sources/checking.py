"""Checks what a source claims: opens the audio of each utterance, and converts it where needed."""

import hashlib
import os
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from nibble.conventions import SAMPLE_RATE_HZ
from nibble.data.audio import file_of, is_member, is_stretch, stretch, stretch_of
from nibble.data.conversion import check, convert, must_be_decoded
from nibble.data.remote import fetched, is_url
from nibble.data.sources.kept import Findings, Utterance
from nibble.data.sources.seen import Seen
from nibble.data.sources.source import Claim, Problem, Source
from nibble.data.text import is_unicode, normalised
from nibble.errors import UserError
from nibble.features.kaldi import WINDOW_SAMPLES
from nibble.progress import track

MAX_ID = 250  # characters
ROUNDING_S = 0.02  # how far times in a manifest may be off because they were rounded
TOLERANCE_S = 0.5  # how far an utterance may reach over the end of its recording, as in Lhotse
OVERLAP_S = 0.1
CONVERTED, SHORTENED = "converted to 16 kHz mono", "end after their recording and were shortened"
OVERLAPPING = "overlap the one before in the same recording"
_CLAIMS = 64  # that a thread checks at a time
_RECORDINGS = 65_536  # whose results are kept in memory
_LOCKS = 64


class Audio(NamedTuple):
    """An audio file that was opened."""

    place: str  # as in `Utterance.audio`
    converted: bool
    samples: int  # at 16 kHz
    change: str  # what was converted


class Note(NamedTuple):
    """A remark about an utterance that can be used."""

    kind: str
    detail: str


class Checker:
    """Checks the claims of one source.

    Args:
        source: the part.
        converted: the folder for converted audio.
        channel: which channel of audio with several; "mix" for their mean.

    Attributes:
        found: what is wrong or unusual; complete when `utterances` has ended.
    """

    def __init__(self, source: Source, converted: Path, channel: str) -> None:
        self.source = source
        self.converted = converted
        self.channel = channel
        self.found = Findings()
        self._locks = [threading.Lock() for _ in range(_LOCKS)]
        self._audio = lru_cache(_RECORDINGS)(self._open)
        self._latest: OrderedDict[str, tuple[str, int, int]] = OrderedDict()  # file -> id, first sample, end

    def utterances(self) -> Iterator[Utterance]:
        """The good utterances, in the order of the claims; what is wrong goes to `found`."""
        seen = Seen()
        with ThreadPoolExecutor(min(32, 2 * (os.cpu_count() or 1))) as pool:
            some = _portions(self.source.claims(), _CLAIMS)
            outcomes = _in_order(pool, self._check_some, some, ahead=8 * (os.cpu_count() or 1))
            every = (outcome for several in outcomes for outcome in several)
            for outcome, note in track(every, f"checking {self.source.path.name}", None):
                if isinstance(outcome, Utterance) and not seen.add(outcome.id):
                    outcome = Problem(outcome.id, "id of an earlier utterance", outcome.audio)
                if isinstance(outcome, Problem):
                    self.found.add_problem(outcome)
                    continue
                for unusual in (note, self._overlap(outcome)):
                    if unusual:
                        self.found.add_note(outcome.id, *unusual)
                yield outcome

    def _check_some(self, claims: list[Claim | Problem]) -> list[tuple[Utterance | Problem, Note | None]]:
        return [(one, None) if isinstance(one, Problem) else self._check(one) for one in claims]

    def _check(self, claim: Claim) -> tuple[Utterance | Problem, Note | None]:
        problem = _wrong(claim)
        if problem:
            return problem, None
        try:
            audio = self._opened(claim)
        except UserError as error:
            return Problem(claim.id, "audio that can't be used", str(error)), None
        first = round(claim.start_s * SAMPLE_RATE_HZ)
        end = audio.samples if claim.duration_s is None else first + round(claim.duration_s * SAMPLE_RATE_HZ)
        beyond_s = (end - audio.samples) / SAMPLE_RATE_HZ
        whole = first == 0 and abs(beyond_s) <= ROUNDING_S
        if is_member(claim.audio) and abs(end - audio.samples) > 1:
            what = f"{audio.samples} samples, where the cut has {claim.duration_s:g} s"
            return Problem(claim.id, "audio of another length", f"{what}, in {claim.audio}"), None
        if first < 0 or end <= first or first >= audio.samples or beyond_s > TOLERANCE_S:
            times = f"{claim.start_s:g} to {end / SAMPLE_RATE_HZ:g} s of {audio.samples / SAMPLE_RATE_HZ:g} s"
            return Problem(claim.id, "times outside of the recording", f"{times} in {claim.audio}"), None
        note = Note(CONVERTED, audio.change) if audio.change else None
        if beyond_s > ROUNDING_S:
            note = Note(SHORTENED, f"by {beyond_s:.2f} s")
        samples = audio.samples if whole else min(end, audio.samples) - first
        if samples < WINDOW_SAMPLES:
            return Problem(claim.id, "less than one frame of audio", f"{samples} samples in {claim.audio}"), None
        place = audio.place if whole else stretch(audio.place, first, samples)
        text, labels = normalised(claim.text), {name: value for name, value in claim.labels.items() if value}
        return Utterance(claim.id, text, place, audio.converted, samples, labels), note

    def _opened(self, claim: Claim) -> Audio:
        """Open the file of a claim, once for all claims that lie in it.

        Raises:
            UserError: it can't be used.
        """
        channel = self.channel if claim.channel is None else str(claim.channel)
        with self._locks[hash(claim.audio) % _LOCKS]:  # so that two threads don't convert the same file
            found = self._audio(claim.audio, channel)
        if isinstance(found, str):
            raise UserError(found)
        return found

    def _open(self, place: str, channel: str) -> Audio | str:
        """The file at a place, or why it can't be used."""
        path = self.source.root / place
        try:
            if is_url(place):
                return self._fetch(place, channel)
            if is_member(place) and file_of(place).endswith(".tar"):
                shape = check(path)
                if shape.difference():
                    raise UserError(
                        f"{shape.difference()} ({path}); put utterances of {SAMPLE_RATE_HZ} Hz, one channel, in shards"
                    )
                return Audio(place, False, shape.samples, "")
            if is_stretch(place):
                raise UserError(f"{path}: the name of a file that ends like a slice; rename it")
            if not os.path.exists(file_of(str(path))):  # which is false for names that can't be
                raise UserError(f"{path} is not there{_nearest(self.source.root, place)}")
            if not must_be_decoded(path):
                whole = check(path)
                if not whole.samples or not whole.change(channel):
                    return Audio(place, False, whole.samples, "")
            status = os.stat(file_of(str(path)))
            target = self._target(f"{place} {channel} {status.st_size} {status.st_mtime_ns}")
            return self._kept(target, convert(path, target, channel))
        except UserError as error:
            return str(error)

    def _fetch(self, url: str, channel: str) -> Audio:
        """The audio at a URL, converted and kept like a file of another rate; it is fetched once.

        Raises:
            UserError: it can't be fetched, or can't be used.
        """
        target = self._target(f"{url} {channel}")
        if not target.is_file():
            with fetched(url) as path:
                convert(path, target, channel)
        return self._kept(target, "fetched by URL")

    def _target(self, what: str) -> Path:
        """Where converted audio is kept, by what tells it from all other."""
        name = f"{hashlib.sha256(os.fsencode(what)).hexdigest()[:32]}.flac"
        return self.converted / name[:2] / name[2:]

    def _kept(self, target: Path, change: str) -> Audio:
        return Audio(target.relative_to(self.converted).as_posix(), True, check(target).samples, change)

    def _overlap(self, utterance: Utterance) -> Note | None:
        """Whether an utterance and the one before it in the same recording are spoken at once."""
        file = file_of(utterance.audio)
        if file == utterance.audio or is_member(utterance.audio):
            return None
        first, end = stretch_of(utterance.audio)
        before = self._latest.get(file)
        self._latest[file] = (utterance.id, first, end)
        self._latest.move_to_end(file)
        if len(self._latest) > _RECORDINGS:
            self._latest.popitem(last=False)
        if before is None:
            return None
        common_s = (min(end, before[2]) - max(first, before[1])) / SAMPLE_RATE_HZ
        return Note(OVERLAPPING, f"{before[0]} for {common_s:.2f} s") if common_s > OVERLAP_S else None


def _wrong(claim: Claim) -> Problem | None:
    """What is wrong with a claim, apart from its audio."""
    if not 0 < len(claim.id) <= MAX_ID:
        return Problem(claim.id[:60] or "?", f"an id that is empty or longer than {MAX_ID} characters", claim.audio)
    if not is_unicode(claim.audio):
        return Problem(claim.id, "a file name that is not UTF-8", f"{claim.audio}; rename it")
    if not all(map(is_unicode, (claim.id, claim.text, *claim.labels, *claim.labels.values()))):
        return Problem(claim.id, "text that is not UTF-8", "convert the file: iconv -f LATIN1 -t UTF-8 FILE > NEW")
    if not normalised(claim.text):
        return Problem(claim.id, "empty transcript")
    if "\0" in claim.audio or not claim.audio:
        return Problem(claim.id, "no audio file named")
    return None


def _nearest(root: Path, place: str) -> str:
    """A hint where the file is, if a manifest from another machine names a path that differs only at its start."""
    parts = Path(place).parts
    for folder in (root, root.parent):
        for start in range(1, len(parts)):
            found = folder.joinpath(*parts[start:])
            if ".." not in parts and os.path.isfile(found):
                old, new = Path(*parts[:start]), found.parents[len(parts) - start - 1]
                return f", but {found} is: write {new} in place of {old}"
    return ""


def _portions(items: Iterable[Claim | Problem], size: int) -> Iterator[list[Claim | Problem]]:
    iterator = iter(items)
    while portion := list(islice(iterator, size)):
        yield portion


def _in_order(
    pool: ThreadPoolExecutor,
    work: Callable[[list[Claim | Problem]], list[tuple[Utterance | Problem, Note | None]]],
    portions: Iterable[list[Claim | Problem]],
    ahead: int,
) -> Iterator[list[tuple[Utterance | Problem, Note | None]]]:
    """As `pool.map`, which would hold all portions at once."""
    waiting: deque[Future[list[tuple[Utterance | Problem, Note | None]]]] = deque()
    for portion in portions:
        waiting.append(pool.submit(work, portion))
        if len(waiting) > ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()
