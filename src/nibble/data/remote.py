"""Audio that a corpus names by URL: opened through fsspec, by us, and only if its scheme is one of a few."""

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from nibble.errors import UserError

SCHEMES = ("https", "http", "s3", "gs")
MAX_BYTES = 2**31
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_BLOCK_BYTES = 2**20


def is_url(place: str) -> bool:
    """Whether the place of some audio is a URL and not a path."""
    return _URL.match(place) is not None


@contextmanager
def fetched(url: str) -> Iterator[Path]:
    """A copy of the file at a URL, with the ending of its name; it is removed afterwards.

    Raises:
        UserError: the scheme is not one of `SCHEMES`, what opens it is not installed, nothing is there, or it is larger
            than `MAX_BYTES`.
    """
    scheme = _URL.match(url)
    if scheme is None or scheme[1].lower() not in SCHEMES or "::" in url:  # with "::" fsspec would open URLs in URLs
        raise UserError(f"{url:.200}: audio is opened by path or by {', '.join(f'{one}://' for one in SCHEMES)}")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"audio{PurePosixPath(urlsplit(url).path).suffix[:10]}"
        _copy(url, path)
        yield path


def _copy(url: str, path: Path) -> None:
    import fsspec

    size_bytes = 0
    try:
        with fsspec.open(url, "rb") as file, path.open("wb") as copy:
            while block := file.read(_BLOCK_BYTES):
                size_bytes += copy.write(block)
                if size_bytes > MAX_BYTES:
                    raise UserError(f"{url} has more than {MAX_BYTES:,} bytes; cut it into shorter recordings")
    except UserError:
        raise
    except ImportError as error:
        raise UserError(f"{url}: {error}; pip install -e .[remote], for gs:// gcsfs") from error
    except Exception as error:  # each file system has its own
        raise UserError(f"{url} cannot be read: {type(error).__name__}: {error}") from error
