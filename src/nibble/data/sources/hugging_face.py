"""A data set of Hugging Face's `datasets`, as `save_to_disk` leaves it: Arrow files and two descriptions in JSON.

train/state.json, train/dataset_info.json, train/data-00000-of-00001.arrow     one split, which is one part

Columns go by the names of `nibble.data.sources.manifest`; `data.columns=` renames them. The column of audio holds whole
audio files, or their paths. Each file is read from its bytes in the Arrow file: nothing is unpacked, and no code of
`datasets` runs.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from nibble.data.audio import member
from nibble.data.sources.manifest import claim_of, names_with, require
from nibble.data.sources.source import Claim, Problem
from nibble.errors import UserError
from nibble.packages import need
from nibble.plain import parse

STATE, INFO = "state.json", "dataset_info.json"
SPLITS = "dataset_dict.json"  # beside the folders of several splits


def is_saved_data_set(folder: Path) -> bool:
    """Whether a part is in this format."""
    return (folder / STATE).is_file() and (folder / INFO).is_file()


class HuggingFace:
    """One split.

    Args:
        path: its folder.
        columns: `data.columns`.
    """

    def __init__(self, path: Path, columns: dict[str, str] | None = None) -> None:
        self.path = self.root = path
        self.names = names_with(columns or {})

    def lists_audio(self) -> bool:
        """Audio may be named by path."""
        return False

    def files(self) -> Iterator[Path]:
        """The description and the Arrow files that it names.

        Raises:
            UserError: the description is damaged, or says that the rows are a selection from the files.
        """
        yield self.path / STATE
        try:
            state = parse((self.path / STATE).read_bytes())
            names = [entry["filename"] for entry in state["_data_files"]]
        except (UserError, OSError, KeyError, TypeError) as error:
            raise UserError(f"{self.path / STATE} is damaged: {error}; save the data set again") from error
        if state.get("_indices_data_files"):
            raise UserError(f"{self.path} is a selection of rows; save it again: dataset.flatten_indices()")
        for name in names:
            if not isinstance(name, str) or PurePath(name).name != name or not name.endswith(".arrow"):
                raise UserError(f"{self.path / STATE} names {name!r:.60}, which is no Arrow file beside it")
            yield self.path / name

    def claims(self) -> Iterator[Claim | Problem]:
        """The rows in their order.

        Raises:
            UserError: pyarrow is not installed, a file is damaged, or there is no column for audio or text.
        """
        need("pyarrow", f"{self.path}, a data set of Hugging Face,", "hugging_face")
        number = 0
        for file in list(self.files())[1:]:
            for row in self._rows(file):
                yield self._claim(row, number)
                number += 1

    def _claim(self, row: dict[str, Any], number: int) -> Claim | Problem:
        place = f"row {number} of {self.path.name}"
        named = next((name for name in self.names["id"] if isinstance(row.get(name), str | int)), None)
        recorded = row.pop("", None)  # the name that the file had when it was put into the data set
        id_ = f"{number}-{PurePath(recorded).stem}" if recorded else str(number)
        if named is not None:
            id_ = str(row.pop(named))
        claim = claim_of(row, self.names, place)
        return replace(claim, id=id_, start_s=0.0, duration_s=None) if isinstance(claim, Claim) else claim

    def _rows(self, file: Path) -> Iterator[dict[str, Any]]:
        """Rows with the place of the audio in its column, and the name of its file under the empty name."""
        import pyarrow as pa

        try:
            with pa.memory_map(str(file)) as mapped:
                whole = mapped.read_buffer(mapped.size())
                with pa.ipc.open_stream(whole) as stream:
                    require(stream.schema.names, self.names, str(file))
                    audio = next(name for name in self.names["audio"] if name in stream.schema.names)
                    kept = [field.name for field in stream.schema if _is_plain(field.type) and field.name != audio]
                    for batch in stream:
                        batch.validate(full=True)
                        places = _places(batch.column(audio), whole, file)
                        for row, (place, name) in zip(batch.select(kept).to_pylist(), places, strict=True):
                            yield {**row, audio: place, "": name}
        except (pa.ArrowException, OSError) as error:
            raise UserError(f"{file} cannot be read: {error}; save the data set again") from error


def _is_plain(kind: Any) -> bool:
    from pyarrow import types

    tests = (types.is_string, types.is_large_string, types.is_integer, types.is_floating)
    return any(test(kind) for test in tests)


def _places(column: Any, whole: Any, file: Path) -> Iterator[tuple[str | None, str | None]]:
    """Where the audio of each row of a batch lies, and the name that its file had."""
    from pyarrow import types

    if not types.is_struct(column.type):
        yield from ((path, path) for path in column.to_pylist())
        return
    fields = {field.name for field in column.type}
    if not {"bytes", "path"} <= fields:
        raise UserError(f"{file}: its column of audio has {', '.join(sorted(fields))}; it is to have bytes and path")
    content, path = column.field("bytes"), column.field("path").to_pylist()
    # Binary arrays: a buffer of validity, one of offsets, one of all bytes after one another.
    _, offsets, data = content.buffers()
    width = np.int64 if types.is_large_binary(content.type) else np.int32
    bounds = np.frombuffer(offsets, width)[content.offset : content.offset + len(content) + 1].tolist()
    first = data.address - whole.address if data is not None else 0
    if not 0 <= first <= whole.size:
        raise UserError(f"{file} is compressed; save the data set again with save_to_disk")
    valid = content.is_valid().to_pylist()
    for number, name in enumerate(path):
        start, end = bounds[number], bounds[number + 1]
        yield (member(Path(file.name), first + start, end - start) if valid[number] else name), name
