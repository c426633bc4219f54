"""Corpora as Lhotse Shar: a thousand utterances a tar file, for drives that millions of small files would choke.

python -m nibble.data.shar CORPUS_DIR TARGET    then data.corpus_dir=TARGET

TARGET/PART/cuts.000000.jsonl.gz     what is said, and how long it is
TARGET/PART/recording.000000.tar     the same utterances in the same order, as FLAC

TARGET may be on a network drive: what a run keeps in memory and in its cache is about the utterances, not their audio.
Lhotse itself reads a shard from front to end. Here each utterance is read from its place in the tar file, so order,
epochs, devices and resumption are those of any other corpus.
"""

import argparse
import hashlib
import os
import shutil
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

from lhotse import CutSet, MonoCut, Recording
from lhotse.audio import AudioSource

from nibble.data.audio import member
from nibble.data.corpora import parts_folder
from nibble.data.manifest import read_part
from nibble.data.progress import track
from nibble.errors import UserError
from nibble.features import SAMPLE_RATE

SHARD_UTTERANCES = 1000


def write_shar(folder: Path, part: str, target: Path, cache_dir: Path) -> None:
    """Write a part in LibriSpeech layout as `target`/`part`; the samples stay what they are.

    Raises:
        UserError: the part has nothing to read, or `target` cannot be written.
    """
    cuts = read_part(folder, part, cache_dir)
    partial = target / f".{part}.partial"
    try:
        shutil.rmtree(partial, ignore_errors=True)  # of a process that was killed
        partial.mkdir(parents=True)
        cuts = CutSet.from_cuts(track(cuts, f"writing {part}", len(cuts)))
        cuts.to_shar(partial, fields={"recording": "flac"}, shard_size=SHARD_UTTERANCES)
        partial.rename(target / part)
    except OSError as error:
        raise UserError(f"cannot write {target / part}: {error.strerror or error}. Make room, or permit it") from error


def is_shar(folder: Path) -> bool:
    """Whether a part is in this format."""
    return any(folder.glob("cuts.*.jsonl.gz"))


def read_shar(folder: Path, part: str, cache_dir: Path) -> CutSet:
    """The utterances of one part, each 16 kHz and mono, text in upper case; their places are looked up once.

    Raises:
        UserError: a tar file is absent or ends too soon, or an utterance is not 16 kHz, mono and of one sentence.
    """
    root = folder / part
    shards = sorted(root.glob("cuts.*.jsonl.gz"))
    digest = hashlib.sha256(str(root.resolve()).encode())
    for path in sorted(root.iterdir()):
        status = path.stat()
        digest.update(f"{path.name} {status.st_size} {status.st_mtime_ns}\n".encode())
    manifest = cache_dir / f"{part}-{digest.hexdigest()[:16]}-shar.jsonl.gz"
    if not manifest.is_file():
        manifest.parent.mkdir(parents=True, exist_ok=True)
        partial = manifest.with_name(f"{os.getpid()}-{manifest.name}")
        found = (cut for shard in track(shards, f"indexing {part}", len(shards)) for cut in _read_shard(shard))
        CutSet.from_cuts(found).to_file(partial)
        partial.replace(manifest)
    cuts = CutSet.from_jsonl_lazy(manifest)
    return CutSet.from_cuts(track(cuts, f"reading {part}", len(cuts)))


def _read_shard(manifest: Path) -> Iterator[MonoCut]:
    """The cuts of a shard, with the places of their audio."""
    archive = manifest.with_name(manifest.name.replace("cuts.", "recording.", 1).replace(".jsonl.gz", ".tar"))
    try:
        with tarfile.open(archive) as tar:
            places = {Path(one.name).stem: one for one in tar if one.isfile() and not one.name.endswith(".json")}
    except (OSError, tarfile.TarError) as error:
        raise UserError(f"{archive} cannot be read: {error}; write it again: python -m nibble.data.shar") from error
    for cut in CutSet.from_jsonl_lazy(manifest):
        if cut.id not in places:
            raise UserError(f"{archive} ends before {cut.id}; write it again: python -m nibble.data.shar")
        yield _placed(cut, archive, places[cut.id])


def _placed(cut: MonoCut, archive: Path, place: tarfile.TarInfo) -> MonoCut:
    fits = cut.sampling_rate == SAMPLE_RATE and cut.num_channels == 1 and cut.start == 0 and len(cut.supervisions) == 1
    if not fits or not cut.supervisions[0].text:
        raise UserError(
            f"{cut.id} in {archive} is {cut.sampling_rate} Hz, {cut.num_channels} channels, {len(cut.supervisions)} "
            f"sentences, from {cut.start:g} s on; give utterances of one sentence, {SAMPLE_RATE} Hz and one channel"
        )
    cut.recording = Recording(
        id=cut.id,
        sources=[AudioSource(type="file", channels=[0], source=member(archive, place.offset_data, place.size))],
        sampling_rate=SAMPLE_RATE,
        num_samples=cut.num_samples,
        duration=cut.num_samples / SAMPLE_RATE,
    )
    cut.supervisions[0].text = " ".join(cut.supervisions[0].text.upper().split())
    return cut


def main(arguments: list[str] | None = None) -> int:
    """Returns 0, or 1 if something cannot be read or written."""
    parser = argparse.ArgumentParser(
        prog="python -m nibble.data.shar", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("corpus", type=Path, metavar="CORPUS_DIR", help="in LibriSpeech layout")
    parser.add_argument("target", type=Path, metavar="TARGET", help="a new folder")
    options = parser.parse_args(arguments)
    try:
        folder = parts_folder(options.corpus, "CORPUS_DIR")
        options.target.mkdir(parents=True, exist_ok=True)
        for part in sorted(path.name for path in folder.iterdir() if path.is_dir()):
            if not is_shar(options.target / part):
                write_shar(folder, part, options.target, Path("data/cache"))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
