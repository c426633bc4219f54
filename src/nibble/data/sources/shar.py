"""Corpora as Lhotse Shar: a thousand utterances a tar file, for drives that millions of small files would choke.

python -m nibble.data.shar CORPUS_DIR TARGET    then data.corpus_dir=TARGET

TARGET/PART/cuts.000000.jsonl.gz     what is said, and how long it is
TARGET/PART/recording.000000.tar     the same utterances in the same order, as FLAC

TARGET may be on a network drive: what a run keeps in memory and in its cache is about the utterances, not their audio.
Lhotse itself reads a shard from front to end. Here each utterance is read from its place in the tar file, so order,
epochs, devices and resumption are those of any other corpus.
"""

import gzip
import hashlib
import os
import shutil
import tarfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, cast

from lhotse import CutSet, MonoCut
from lhotse.shar import AudioTarWriter, JsonlShardWriter
from lhotse.shar.utils import to_shar_placeholder
from lhotse.utils import fastcopy

from nibble.data.audio import check, decode, member, source
from nibble.data.sources.cache import read_part
from nibble.data.sources.lhotse_cuts import ShardCut, parse_cut
from nibble.data.sources.librispeech import Findings, Utterance, cuts, kept, report
from nibble.data.sources.lines import lines
from nibble.errors import UserError
from nibble.features.kaldi import SAMPLE_RATE, WINDOW_SAMPLES
from nibble.progress import track

FORMAT = "2"  # of what is kept about a part
SHARD_UTTERANCES = 1000


def write_shar(folder: Path, part: str, target: Path, cache_dir: Path) -> None:
    """Write a part in LibriSpeech layout as `target`/`part`; the samples stay what they are.

    Raises:
        UserError: the part has nothing to read, or `target` cannot be written.
    """
    found = read_part(folder, part, cache_dir)
    partial = target / f".{part}.partial"
    try:
        shutil.rmtree(partial, ignore_errors=True)  # of a process that was killed
        partial.mkdir(parents=True)
        _write(track(found, f"writing {part}", len(found)), partial)
        partial.rename(target / part)
    except OSError as error:
        raise UserError(f"cannot write {target / part}: {error.strerror or error}. Make room, or permit it") from error


def _write(cuts: Iterable[MonoCut], folder: Path) -> None:
    """As Lhotse's `to_shar`, which would find a way of its own to decode the files."""
    pattern = str(folder).replace("%", "%%")
    tars = AudioTarWriter(f"{pattern}/recording.%06d.tar", SHARD_UTTERANCES, format="flac")
    texts = JsonlShardWriter(f"{pattern}/cuts.%06d.jsonl.gz", SHARD_UTTERANCES)
    with tars, texts:
        for cut in cuts:
            recording = to_shar_placeholder(cut.recording, cut)
            tars.write(cut.id, decode(source(cut))[None], SAMPLE_RATE, manifest=recording)
            texts.write(fastcopy(cut, recording=recording))


def is_shar(folder: Path) -> bool:
    """Whether a part is in this format."""
    return any(folder.glob("cuts.*.jsonl.gz"))


def read_shar(folder: Path, part: str, cache_dir: Path, max_bad_utterances: int = 0) -> CutSet:
    """The utterances of one part, each 16 kHz and mono, text in upper case; they are checked once.

    Raises:
        UserError: cuts that are not ours to read (`lhotse_cuts`), a tar file that is absent or ends too soon, or more
            utterances left out than allowed.
    """
    root = folder / part
    shards = sorted(root.glob("cuts.*.jsonl.gz"))
    digest = hashlib.sha256(os.fsencode(f"{FORMAT} {root.resolve()}"))
    names = sorted(path.name for path in root.iterdir())
    for path in (root / name for name in names):
        status = path.stat()
        digest.update(os.fsencode(f"{path.name} {status.st_size} {status.st_mtime_ns}\n"))
    manifest = cache_dir / f"{part}-{digest.hexdigest()[:16]}-shar.jsonl.gz"
    found = kept(
        manifest,
        part,
        check=lambda: _check_shards(shards, part),
        there=lambda one: one.audio.partition(":")[0] in names,
    )
    report(root, found, max_bad_utterances)
    return cuts(found, root, cache_dir)


def _check_shards(shards: list[Path], part: str) -> Findings:
    """Check every utterance of the shards of a part."""
    found = Findings()
    known: set[str] = set()
    for shard in track(shards, f"indexing {part}", len(shards)):
        for cut, utterance in _check_shard(shard):
            if cut.id in known:
                raise UserError(f"{shard} has a second cut {cut.id}; ids are to be unique within {part}")
            known.add(cut.id)
            if isinstance(utterance, str):
                found.problems[cut.id] = utterance
            else:
                found.good.append(utterance)
    return found


def _check_shard(manifest: Path) -> Iterator[tuple[ShardCut, Utterance | str]]:
    """Each cut of a shard, and its utterance or why it can't be used."""
    archive = manifest.with_name(manifest.name.replace("cuts.", "recording.", 1).removesuffix(".jsonl.gz") + ".tar")
    cure = "write it again: python -m nibble.data.shar"
    try:
        with gzip.open(manifest) as file, tarfile.open(archive, "r:") as tar:
            places = {Path(one.name).stem: one for one in tar if one.isreg() and not one.name.endswith(".json")}
            for number, line in enumerate(lines(file, str(manifest)), start=1):
                cut = parse_cut(line, f"{manifest}, line {number}")
                if cut.id not in places:
                    raise UserError(f"{archive} ends before {cut.id}; {cure}")
                yield cut, _check(cut, tar, places[cut.id], archive)
    except (tarfile.TarError, EOFError, zlib.error, OSError, OverflowError, MemoryError, ValueError) as error:
        raise UserError(f"{archive} cannot be read, or {manifest.name} beside it: {error}; {cure}") from error


def _check(cut: ShardCut, tar: tarfile.TarFile, place: tarfile.TarInfo, archive: Path) -> Utterance | str:
    """The utterance, if its audio is what the cut says; else why it can't be used."""
    audio = tar.extractfile(place)
    if audio is None or place.issparse():
        return f"{place.name} in {archive} is not a file"
    try:
        shape = check(cast(BinaryIO, audio), f"{place.name} in {archive}")
    except UserError as error:
        return str(error)
    difference = shape.difference() or ("" if cut.rate_hz == SAMPLE_RATE else f"{cut.rate_hz} Hz")
    if difference:
        return f"{difference} ({place.name} in {archive}); give utterances of {SAMPLE_RATE} Hz and one channel"
    if abs(shape.samples - cut.duration_s * SAMPLE_RATE) > 1:
        return f"{shape.samples} samples, where the cut has {cut.duration_s:g} s ({place.name} in {archive})"
    if shape.samples < WINDOW_SAMPLES:
        return f"{shape.samples} samples of audio, less than one frame ({place.name} in {archive})"
    return Utterance(cut.id, cut.text, member(Path(archive.name), place.offset_data, place.size), shape.samples)
