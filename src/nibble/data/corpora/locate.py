"""Finds a corpus; downloads or builds it on first use."""

import tarfile
import urllib.error
import zlib
from pathlib import Path

from lhotse.recipes.librispeech import LIBRISPEECH, MINI_LIBRISPEECH, download_librispeech

from nibble.data.corpora.digits import BUILT, build_digits
from nibble.data.corpora.embedded import embedded_folder, make_embedded
from nibble.data.options import Corpus, DataConfig
from nibble.data.sources.recognise import parts_folder
from nibble.errors import UserError, nearest

ROOT = Path("data")  # made corpora and caches, in the working directory of a training
OPENSLR = "https://www.openslr.org/resources"
DOWNLOADS = {Corpus.mini_librispeech: MINI_LIBRISPEECH, Corpus.librispeech: LIBRISPEECH}


def locate(data: DataConfig, root: Path, base_url: str = OPENSLR) -> tuple[str, Path]:
    """(name of the corpus, its folder of parts); makes or downloads it below `root` when it isn't there.

    Raises:
        UserError: the folder doesn't exist or holds no parts, or the download failed.
    """
    if data.corpus_dir is not None:
        folder = parts_folder(Path(data.corpus_dir), "data.corpus_dir")
        named = folder.parent if folder.name == "LibriSpeech" else folder
        return named.resolve().name, folder
    if data.corpus == Corpus.embedded:
        return data.corpus.value, parts_folder(make_embedded(root, data.embedded_hours), "data.corpus")
    if data.corpus == Corpus.digits:
        return data.corpus.value, parts_folder(_digits(data, root), "data.corpus")
    wanted = [*(data.train_parts or []), *(data.dev_parts or []), *(data.test_parts or [])]
    folder = root / data.corpus.value
    _download(data.corpus, wanted, folder, base_url)
    return data.corpus.value, folder / "LibriSpeech"


def find_made(data: DataConfig, root: Path) -> Path | None:
    """The folder that `locate` finds if nothing has to be made or downloaded for it; None if something has to."""
    if data.corpus_dir is not None:
        folder = Path(data.corpus_dir)
    elif data.corpus == Corpus.embedded:
        folder = embedded_folder(root, data.embedded_hours)
    elif data.corpus == Corpus.digits:
        folder = root / (BUILT if data.fsdd_dir is not None else data.corpus.value)
    else:
        folder = root / data.corpus.value
    return folder if folder.is_dir() else None


def _digits(data: DataConfig, root: Path) -> Path:
    """The folder of the digits: built from the clone if one is given, even where a folder exists already."""
    if data.fsdd_dir is not None:
        return build_digits(Path(data.fsdd_dir), root)
    folder = root / "digits"
    if not folder.is_dir():
        raise UserError(
            f"the digits are not in {folder}. Either build them from a clone of "
            "https://github.com/Jakobovski/free-spoken-digit-dataset: data.fsdd_dir=CLONE, "
            "or put a copy in LibriSpeech layout there, or anywhere: data.corpus_dir=DIR"
        )
    return folder


def _download(corpus: Corpus, wanted: list[str], folder: Path, base_url: str) -> None:
    """Fetch and unpack the parts that aren't there; an interrupted download goes on where it stopped."""
    known = DOWNLOADS[corpus]
    for name in wanted:
        if name not in known:
            raise UserError(f"{corpus.value} has no part {name}; there is {nearest(name, known)}")
    try:
        download_librispeech(folder, dataset_parts=wanted or known, base_url=base_url)
    except urllib.error.URLError as error:
        raise UserError(
            f"can't download {corpus.value} from {base_url}: {error}. Try again later: what has arrived is kept. "
            "Or fetch it another way and give its folder: data.corpus_dir=DIR"
        ) from error
    except (tarfile.ReadError, EOFError, zlib.error, ConnectionError) as error:
        raise UserError(
            f"an archive of {corpus.value} in {folder} is not whole ({error}). Start again and the download goes on; "
            "if that doesn't help, remove the archive"
        ) from error
