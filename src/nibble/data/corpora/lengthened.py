"""Joins the utterances of a part into long ones, to find out what length costs a recogniser."""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from lhotse import MonoCut

from nibble.conventions import SAMPLE_RATE_HZ
from nibble.data.audio import decode, source
from nibble.data.corpora.digits import quietest
from nibble.data.corpora.layout import Utterance, write_chapter
from nibble.data.sources.part import read_part
from nibble.data.sources.recognise import part_path, parts_folder, source_of
from nibble.progress import track
from nibble.writing import make_folder_once

DURATIONS_S = (20, 40, 60)
_PAUSE_S = 0.3


def write_lengthened(corpus: Path, part: str, cache_dir: Path) -> Path:
    """The corpus CORPUS-long beside a corpus, written where it is missing: parts test-20s, test-40s and test-60s.

    Each has all words of `part`: utterances of one speaker, in their order, are joined until they last so long. What a
    speaker has left over is shorter. In the pauses between them there is noise as loud as the quietest moment.

    Raises:
        UserError: there is no such part, some of its utterances cannot be read, or the disk is full.
    """
    folder = corpus.with_name(f"{corpus.name}-long")
    if not folder.exists():
        cuts = list(read_part(source_of(part_path(parts_folder(corpus, "CORPUS_DIR"), part)), cache_dir))
        make_folder_once(folder, partial(_write, cuts=cuts))
    return folder


def _write(folder: Path, cuts: Sequence[MonoCut]) -> None:
    """Write the parts into the empty `folder`."""
    speakers: dict[str, list[MonoCut]] = {}
    for cut in cuts:
        speakers.setdefault(str(cut.supervisions[0].speaker), []).append(cut)
    for duration_s in DURATIONS_S:
        title = f"joining utterances to {duration_s} s: speakers"
        for speaker, own in track(speakers.items(), title, len(speakers)):
            joined = [_joined(together) for together in groups(own, duration_s)]
            write_chapter(folder, f"test-{duration_s}s", speaker, duration_s, joined)


def groups(cuts: Sequence[MonoCut], least_s: float) -> Iterator[list[MonoCut]]:
    """Neighbours that last at least `least_s` with the pauses between them; the last ones may be shorter."""
    together: list[MonoCut] = []
    for cut in cuts:
        together.append(cut)
        if sum(one.duration for one in together) + _PAUSE_S * (len(together) - 1) >= least_s:
            yield together
            together = []
    if together:
        yield together


def _joined(cuts: Sequence[MonoCut]) -> Utterance:
    spoken = [np.rint(np.clip(decode(source(cut)) * 32768, -32768, 32767)).astype(np.int16) for cut in cuts]
    floor = min(map(quietest, spoken))
    noise = np.random.default_rng(len(cuts))
    pieces = [spoken[0]]
    for samples in spoken[1:]:
        pause = floor * noise.standard_normal(round(_PAUSE_S * SAMPLE_RATE_HZ))
        pieces += [np.rint(pause).astype(np.int16), samples]
    return Utterance(" ".join(cut.supervisions[0].text for cut in cuts), np.concatenate(pieces))
