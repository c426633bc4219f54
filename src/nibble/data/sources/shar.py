"""Lhotse Shar corpora: a thousand utterances in each tar file, for drives that are slow with many small files.

python -m nibble.data.shar CORPUS_DIR TARGET    then data.corpus_dir=TARGET

TARGET/PART/cuts.000000.jsonl.gz     what is said, and how long it is
TARGET/PART/recording.000000.tar     the same utterances in the same order, as FLAC

TARGET may be on a network drive: a run keeps metadata in memory and in its cache, and no audio.
Lhotse itself reads a shard from front to end. Here each utterance is read from its place in the tar file, so order,
epochs, devices and resumption are those of any other corpus.
"""

import gzip
import tarfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from lhotse import MonoCut
from lhotse.shar import AudioTarWriter, JsonlShardWriter
from lhotse.shar.utils import to_shar_placeholder
from lhotse.utils import fastcopy

from nibble.conventions import SAMPLE_RATE_HZ
from nibble.data.audio import decode, member, source
from nibble.data.sources.lhotse_cuts import parse_cut
from nibble.data.sources.lines import lines
from nibble.data.sources.part import read_part
from nibble.data.sources.source import Claim, Problem, Source
from nibble.errors import UserError
from nibble.progress import track
from nibble.writing import explained, whole_folder

SHARD_UTTERANCES = 1000


def write_shar(speech: Source, part: str, target: Path, cache_dir: Path) -> None:
    """Write a part as `target`/`part`; 16 kHz mono samples are copied unchanged.

    Raises:
        UserError: the part has nothing to read, or `target` cannot be written.
    """
    found = read_part(speech, cache_dir)
    with explained(target / part), whole_folder(target / part) as folder:
        _write(track(found, f"writing {part}", len(found)), folder)


def _write(cuts: Iterable[MonoCut], folder: Path) -> None:
    """Like Lhotse's `to_shar`, but with this project's decoding."""
    pattern = str(folder).replace("%", "%%")
    tars = AudioTarWriter(f"{pattern}/recording.%06d.tar", SHARD_UTTERANCES, format="flac")
    texts = JsonlShardWriter(f"{pattern}/cuts.%06d.jsonl.gz", SHARD_UTTERANCES)
    with tars, texts:
        for cut in cuts:
            recording = to_shar_placeholder(cut.recording, cut)
            tars.write(cut.id, decode(source(cut))[None], SAMPLE_RATE_HZ, manifest=recording)
            texts.write(fastcopy(cut, recording=recording))


def is_shar(folder: Path) -> bool:
    """Whether a part is in this format."""
    return any(folder.glob("cuts.*.jsonl.gz"))


class Shar:
    """Cuts in compressed files, and tar files with their audio beside them."""

    def __init__(self, root: Path) -> None:
        self.path = self.root = root

    def lists_audio(self) -> bool:
        """The tar files are of the part."""
        return True

    def files(self) -> Iterator[Path]:
        """All files of the folder."""
        return iter(sorted(path for path in self.root.iterdir() if not path.is_dir()))

    def claims(self) -> Iterator[Claim | Problem]:
        """Each cut, shard after shard."""
        for manifest in sorted(self.root.glob("cuts.*.jsonl.gz")):
            yield from _claims(manifest)


def _claims(manifest: Path) -> Iterator[Claim | Problem]:
    """Each cut of a shard, and where its audio is in the tar file."""
    archive = manifest.with_name(manifest.name.replace("cuts.", "recording.", 1).removesuffix(".jsonl.gz") + ".tar")
    cure = "write it again: python -m nibble.data.shar"
    try:
        with gzip.open(manifest) as file, tarfile.open(archive, "r:") as tar:
            places = {Path(one.name).stem: one for one in tar if one.isreg() and not one.name.endswith(".json")}
            for number, line in enumerate(lines(file, str(manifest)), start=1):
                cut = parse_cut(line, f"{manifest}, line {number}")
                place = places.get(cut.id)
                if place is None:
                    raise UserError(f"{archive} ends before {cut.id}; {cure}")
                if cut.rate_hz != SAMPLE_RATE_HZ:
                    what = f"{cut.rate_hz} Hz in {manifest}"
                    yield Problem(cut.id, f"not {SAMPLE_RATE_HZ} Hz and one channel, as shards must be", what)
                elif place.issparse():
                    yield Problem(cut.id, "audio that can't be used", f"{place.name} in {archive} is not a file")
                else:
                    audio = member(Path(archive.name), place.offset_data, place.size)
                    yield Claim(cut.id, cut.text, audio, 0.0, cut.duration_s, None, cut.labels)
    except (tarfile.TarError, EOFError, zlib.error, OSError, OverflowError, MemoryError, ValueError) as error:
        raise UserError(f"{archive} cannot be read, or {manifest.name} beside it: {error}; {cure}") from error
