"""Reads a checkpoint file from anywhere safely: every byte is checked, nothing is executed, memory is bounded.

torch.save writes a zip file: `data.pkl`, a pickle of names, numbers and shapes, and for each tensor its bytes as they
are, each with a checksum (CRC-32) that torch.load does not look at. A pickle is a program; of the functions that it may
name, only those that put a tensor together are let through.
"""

import io
import pickletools
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from nibble.errors import UserError

_CURE = "copy it again, or use another checkpoint of the run"
_ALLOWED = {"torch._utils _rebuild_tensor_v2", "collections OrderedDict", "_codecs encode"}  # the last one: of bytes
_STORAGES = {
    f"torch {name}Storage"
    for name in ["Float", "Double", "Half", "BFloat16", "Long", "Int", "Short", "Char", "Byte", "Bool"]
}
_MOST_MEMBERS = 1_000_000


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The dictionary in a checkpoint file: tensors in main memory, and plain data; anything else is refused, not run.

    Raises:
        UserError: the file is absent, unreadable, truncated, changed in any bit, or not a checkpoint.
    """
    try:
        with path.open("rb") as file:
            saved = read_saved(file, str(path))
    except OSError as error:
        raise UserError(f"the checkpoint {path} cannot be read: {error.strerror}") from error
    if not isinstance(saved, dict) or not isinstance(saved.get("nibble"), dict) or "state_dict" not in saved:
        raise UserError(f"{path} was not written by nibble's train.py: it has no configuration inside")
    return saved


def read_saved(file: BinaryIO, name: str) -> Any:
    """Read any file that torch.save wrote, with the same checks.

    Args:
        file: open for reading; it may be a member of an archive.
        name: what messages call it.

    Raises:
        UserError: the file is truncated or changed, or holds more than tensors and plain data.
    """
    pickled, tensor_bytes = _checked(file, name)
    _check_program(name, pickled)
    file.seek(0)
    try:
        saved = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # the unpickler raises of every kind, depending on where the program goes wrong
        text = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"{name} is damaged, and nothing in it was executed: {text}; {_CURE}") from error
    _check_tensors(name, saved, tensor_bytes)
    return saved


def _checked(file: BinaryIO, path: str) -> tuple[bytes, int]:
    """The pickle of a checkpoint whose checksums are right, and how many bytes of tensors the file holds."""
    start = file.read(4)
    size_bytes = file.seek(0, io.SEEK_END)
    if start != b"PK\x03\x04":
        raise UserError(f"{path} is not a checkpoint: it does not begin as torch.save files do")
    try:
        if not zipfile.is_zipfile(file):  # the directory stands at the end
            raise UserError(f"{path} is truncated: it ends after {size_bytes} bytes without its directory; {_CURE}")
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            _check_members(path, members, size_bytes)
            if wrong := archive.testzip():
                raise UserError(f"{path} is damaged: {wrong} is not what its checksum says; {_CURE}")
            pickles = [member for member in members if member.filename.endswith("/data.pkl")]
            if len(pickles) != 1:
                raise UserError(f"{path} is not a checkpoint: it has {len(pickles)} files data.pkl")
            tensors = [member for member in members if member.filename.split("/")[1:-1] == ["data"]]
            return archive.read(pickles[0]), sum(member.file_size for member in tensors)
    except UserError:
        raise
    except Exception as error:  # zipfile raises BadZipFile, struct.error, NotImplementedError, RuntimeError and others
        raise UserError(f"{path} is damaged: {str(error) or type(error).__name__}; {_CURE}") from error


def _check_members(path: str, members: list[zipfile.ZipInfo], size_bytes: int) -> None:
    """Refuse compressed members, which could hold any number of bytes, and two members with one name."""
    packed = next((member.filename for member in members if member.compress_type != zipfile.ZIP_STORED), None)
    if packed is not None:
        raise UserError(f"{path} is not a checkpoint: {packed} is compressed, which torch.save never does")
    if len({member.filename for member in members}) != len(members) or len(members) > _MOST_MEMBERS:
        raise UserError(f"{path} is not a checkpoint: its files have no names of their own")
    if sum(member.file_size for member in members) > size_bytes:
        raise UserError(f"{path} is damaged: it holds less than its directory says; {_CURE}")


def _check_program(path: str, pickled: bytes) -> None:
    """Check that the pickle calls only functions that build tensors."""
    try:
        for opcode, argument, _ in pickletools.genops(pickled):
            if opcode.name == "GLOBAL" and argument in _ALLOWED | _STORAGES:
                continue
            if opcode.name in ("GLOBAL", "STACK_GLOBAL", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "EXT1", "EXT2", "EXT4"):
                raise UserError(
                    f"{path} holds more than tensors and plain data ({argument or opcode.name}), so it was not loaded "
                    "and nothing in it was executed"
                )
    except UserError:
        raise
    except Exception as error:  # of pickletools, what it makes of bytes that are no pickle
        raise UserError(f"{path} is damaged: data.pkl is no pickle: {error}; {_CURE}") from error


def _check_tensors(path: str, saved: Any, held_bytes: int) -> None:
    """Check that no tensor is larger than the bytes that the file holds for it."""
    storages: dict[int, int] = {}
    for tensor in _tensors(saved):
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
        if tensor.numel() * tensor.element_size() > storage.nbytes() or tensor.layout is not torch.strided:
            raise UserError(f"{path} is damaged: a tensor {tuple(tensor.shape)} has {storage.nbytes()} bytes; {_CURE}")
    if sum(storages.values()) != held_bytes:
        raise UserError(
            f"{path} is damaged: its tensors take {sum(storages.values())} bytes and it holds {held_bytes}; {_CURE}"
        )


def _tensors(saved: object) -> Iterator[Tensor]:
    """All tensors in plain data, however deep."""
    waiting: list[object] = [saved]
    seen: set[int] = set()
    while waiting:
        value = waiting.pop()
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (dict, list, tuple, set)) and id(value) not in seen:
            seen.add(id(value))
            waiting += [*value.keys(), *value.values()] if isinstance(value, dict) else value
